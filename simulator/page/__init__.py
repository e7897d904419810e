"""The simulator's live page, for people: the cluster at a glance, its calls as they come, and faults to switch on."""
