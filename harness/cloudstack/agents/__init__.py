"""How the management server reaches agents and the secondary storage role."""
