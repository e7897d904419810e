"""Which job is shown how far which copy is."""

from __future__ import annotations

import pytest

from harness.cloudstack.progress import JobProgress, WatchedEndpoint, working_on
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import (
    Answer,
    AnyAnswer,
    AnyCommand,
    CancelCommand,
    PingCommand,
    StorPoolSetVolumeEncryptionCommand,
)
from harness.spi.errors import Unknown
from harness.spi.passphrase import Passphrase

JOB, OTHER = "job-1", "job-2"


def copy(path: str) -> StorPoolSetVolumeEncryptionCommand:
    return StorPoolSetVolumeEncryptionCommand(path=path, size=1, passphrase=Passphrase("p"))


class Host:
    name = "kvm1"

    def __init__(self) -> None:
        self.progress = JobProgress(ThreadRuntime("management"))
        self.endpoint = WatchedEndpoint(self, self.progress)
        self.told: list[dict[str, int]] = []
        self.seen: list[tuple[int, int]] = []
        self.fails = False

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        del command, timeout
        for copies in self.told:
            self.progress.told(self.name, copies)
            self.seen.append((self.progress.of(JOB), self.progress.of(OTHER)))
        if self.fails:
            raise Unknown("no answer")
        return Answer(result=True)


def test_the_job_that_waits_is_shown_its_copy_and_no_other() -> None:
    host = Host()
    host.told = [{}, {"b": 70}, {"a": 5, "b": 80}, {"a": 40}, {"a": 30}, {}]
    with working_on(JOB):
        host.endpoint.send(copy("a"), timeout=9)
    assert host.seen == [(0, 0), (0, 0), (5, 0), (40, 0), (40, 0), (40, 0)]
    assert host.progress.of(JOB) == 0, "it does not wait any more"


def test_the_same_path_on_another_host_is_another_copy() -> None:
    host = Host()
    with working_on(JOB), host.progress.waiting("kvm2", copy("a")):
        host.progress.told("kvm1", {"a": 50})
        assert host.progress.of(JOB) == 0
        host.progress.told("kvm2", {"a": 50})
        assert host.progress.of(JOB) == 50


@pytest.mark.parametrize("command", [PingCommand(), CancelCommand(path="a")])
def test_what_copies_nothing_and_what_no_job_waits_for_is_shown_nowhere(command: AnyCommand) -> None:
    host = Host()
    host.told = [{"a": 50}]
    with working_on(JOB):
        host.endpoint.send(command, timeout=9)
    host.endpoint.send(copy("a"), timeout=9)
    assert host.seen == [(0, 0), (0, 0)]


def test_an_answer_that_does_not_come_ends_it_too() -> None:
    host = Host()
    host.told, host.fails = [{"a": 50}], True
    with working_on(JOB):
        with pytest.raises(Unknown):
            host.endpoint.send(copy("a"), timeout=9)
        host.progress.told("kvm1", {"a": 60})
    assert (host.seen, host.progress.of(JOB)) == ([(50, 0)], 0)
