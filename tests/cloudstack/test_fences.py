"""Fences: a host counts as switched off only when that is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cloudstack.fences import CgroupFence, CommandFence, FenceConfig, make_fence
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Error


def test_a_command_that_fails_or_is_not_there_fences_nothing() -> None:
    CommandFence(("true",)).fence()
    for argv in (("false",), ("/nonexistent/ipmitool",)):
        with pytest.raises(Error, match="could not switch the host off"):
            CommandFence(argv).fence()


def folder(path: Path, processes: str) -> Path:
    (path / "child").mkdir()
    for name in ("cgroup.freeze", "cgroup.kill"):
        (path / name).write_text("")
    (path / "cgroup.procs").write_text("")
    (path / "child/cgroup.procs").write_text(processes)
    return path


def test_a_cgroup_is_killed_and_empty_or_it_is_not_fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cloudstack.fences.KILL_SECONDS", 0.0)
    runtime = ThreadRuntime("test")
    fence = CgroupFence(runtime, folder(tmp_path, ""))
    fence.fence()
    assert (tmp_path / "cgroup.kill").read_text() == "1"
    assert (tmp_path / "cgroup.freeze").read_text() == "0", "what is frozen would not die"
    (tmp_path / "child/cgroup.procs").write_text("17\n")
    with pytest.raises(Error, match="do not end"):
        fence.fence()
    with pytest.raises(Error, match="no cgroup"):
        CgroupFence(runtime, tmp_path / "gone").fence()


def test_a_fence_is_one_of_the_two(tmp_path: Path) -> None:
    runtime = ThreadRuntime("test")
    assert isinstance(make_fence(runtime, FenceConfig(cgroup=str(tmp_path))), CgroupFence)
    assert isinstance(make_fence(runtime, FenceConfig(command=("true",))), CommandFence)
    for wrong in (FenceConfig(), FenceConfig(command=("true",), cgroup="/x")):
        with pytest.raises(Error, match="either"):
            make_fence(runtime, wrong)
