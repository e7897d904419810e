"""Faults: which there are, at which points they fit, and plans that say which strikes where."""

from harness.faults.injector import Fired, Injector
from harness.faults.kinds import KINDS, FaultKind, fitting
from harness.faults.plan import Fault, parse_fault
from harness.faults.points import Point
from harness.faults.target import FaultTarget

__all__ = ["KINDS", "Fault", "FaultKind", "FaultTarget", "Fired", "Injector", "Point", "fitting", "parse_fault"]
