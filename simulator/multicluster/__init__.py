"""Several clusters: calls that concern more than one, and the way between those of one process."""
