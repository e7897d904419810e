"""The local lab: KVM hosts, an NFS host and a StorPool cluster in namespaces of this machine, reached like any lab."""

from lab.local.down import LeftOver, abandoned, down
from lab.local.up import status, up

__all__ = ["LeftOver", "abandoned", "down", "status", "up"]
