"""The secondary storage role: plays CloudStack's secondary storage VM beside the export that it owns.

Imports the agent's server and qemu-img work, and of this package nothing, so that it can run on a machine of its own.
"""
