"""Which commit of the project this is."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """As `git describe` says it; `unknown` outside a clone."""
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
