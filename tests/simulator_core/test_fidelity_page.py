"""FIDELITY.md claims what the tests prove, no less and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("fidelity.py")


def test_the_page_says_what_the_tests_prove() -> None:
    done = subprocess.run([sys.executable, PAGE], capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, f"{done.stdout[-4000:]}{done.stderr[-2000:]}\nwrite it again: make fidelity"
