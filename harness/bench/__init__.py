"""Measurements of what the parts cost, each beside a baseline of the same machine and minute."""
