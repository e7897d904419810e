"""Hosts and what they need: local namespace hosts, SSH hosts, guest image, secondary storage, lab files."""
