"""The host half of the StorPool plugin: takes CloudStack's commands on a KVM host and carries them out.

`Agent` (agent.py) dispatches to `handlers/`; they work through the storage adaptor (adaptor.py) and the ports Host,
Hypervisor and Secondary. What they do is on record (operations.py) until it is over; recovery.py finishes or undoes
what they leave open. `main.py` puts the real ports together; the memory world puts models in their place.
"""
