"""The error tree of the lab.

LabError                what was tried, on what, what to do next
├── LabFileError        the lab file is missing, malformed or half valid
├── MissingPrerequisite something the machine lacks; the text names the command that supplies it
└── NotOurs             a device, namespace, mount or process that this lab did not make
"""

from __future__ import annotations


class LabError(Exception):
    """Root of the errors that the lab raises on purpose."""


class LabFileError(LabError):
    """The lab file cannot be used; the text says which key and why."""


class MissingPrerequisite(LabError):
    """The machine lacks something; the text names it and the command that supplies it."""


class NotOurs(LabError):
    """Refused: this lab did not make the thing it was asked to touch."""
