"""The first process of a lab machine: which services it starts again, and how often."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import signal
from lab.local import hostinit
hostinit.RESTART_DELAY, hostinit.RESTARTS, hostinit.SOON = 0.01, 2, 1.0
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
def service(name, script):
    return {"name": name, "argv": ["sh", "-c", script], "log": name + ".log", "restart": True}
hostinit.tend([service("killed", "echo up; sleep 1.2; kill -9 $$"), service("broken", "echo up")])
"""


def ups(log: Path) -> int:
    return log.read_text().count("up") if log.exists() else 0


def test_a_service_that_is_killed_comes_back_every_time_and_one_that_cannot_start_is_given_up(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    init = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 60
        while ups(tmp_path / "killed.log") < 4:
            assert time.monotonic() < deadline and init.poll() is None, "the killed service does not come back"
            time.sleep(0.05)
    finally:
        init.kill()
        init.wait(10)
    assert ups(tmp_path / "broken.log") == 2
