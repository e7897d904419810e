"""Invariants that are true whenever the cloud is at rest, judged through the four observers."""

from __future__ import annotations

from harness.checks.invariants import INVARIANTS, Invariant, Violation, violations
from harness.checks.picture import Picture, take
from harness.checks.rest import violations_at_rest

__all__ = ["INVARIANTS", "Invariant", "Picture", "Violation", "take", "violations", "violations_at_rest"]
