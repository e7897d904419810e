"""First process of a lab machine: makes its mounts, starts its services, and collects every orphan below it.

Run as a script inside the machine's namespaces with the path of a JSON file:
`{"hostname", "sysctl": {path: value}, "mounts": [[option, ...], ...], "directories": [path, ...],
"services": [{"name", "argv", "log", "restart"}, ...], "pid_file"}`. Needs nothing but the standard library, and is no
PID 1: it declares itself the reaper of its descendants, else libvirt waits seconds for each QEMU that ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
RESTART_DELAY = 1.0
RESTARTS = 20
"""How often in a row a service is started again that ends as soon as it was started."""
SOON = 1.0
"""Seconds: a service that lived longer had started well."""


def prepare(config: dict[str, Any]) -> None:
    for name, value in config.get("sysctl", {}).items():
        Path("/proc/sys", name).write_text(value)
    for options in config.get("mounts", []):
        target = Path(options[-1])
        if str(target).startswith("/run/"):
            target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", *options], check=True, timeout=30)
    for path in config.get("directories", []):
        Path(path).mkdir(parents=True, exist_ok=True)
    if "hostname" in config:
        subprocess.run(["hostname", config["hostname"]], check=True, timeout=30)


def start(service: dict[str, Any]) -> int:
    with Path(service["log"]).open("ab") as log:
        # Its own session: a signal to the terminal's group must not reach it.
        child = subprocess.Popen(
            service["argv"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD]),
        )
    child.returncode = 0  # waited for below, not by subprocess
    return child.pid


def tend(services: list[dict[str, Any]]) -> None:
    """Collect every child for ever; a service that ends is started again where it asks for it."""
    running = {start(service): service for service in services}
    due: list[tuple[float, dict[str, Any]]] = []
    started = {service["name"]: time.monotonic() for service in services}
    left = {service["name"]: RESTARTS for service in services}
    while True:
        signal.sigtimedwait([signal.SIGCHLD], 0.2 if due else 3600)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            service = running.pop(pid, None)
            if service is None or not service.get("restart"):
                continue
            name = service["name"]
            left[name] = left[name] - 1 if time.monotonic() - started[name] < SOON else RESTARTS
            if left[name] > 0:
                due.append((time.monotonic() + RESTART_DELAY, service))
        for entry in [entry for entry in due if entry[0] <= time.monotonic()]:
            due.remove(entry)
            running[start(entry[1])] = entry[1]
            started[entry[1]["name"]] = time.monotonic()


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    prepare(config)
    Path(config["pid_file"]).write_text(str(os.getpid()))
    tend(config["services"])


if __name__ == "__main__":
    main()
