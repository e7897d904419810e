"""When a host counts as lost, and is fenced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloud_rig import HOSTS, Json, Rig, configuration

from harness.cloudstack.records.rows import HostRow
from harness.runtime.threads import ThreadRuntime

SILENCE = 75.0


class Site:
    """A VM on a host that may be fenced, and time that passes only when it is told to."""

    def __init__(self, runtime: ThreadRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed, self.fenced = 0.0, 0
        right = runtime.monotonic
        monkeypatch.setattr(runtime, "monotonic", lambda: right() + self.passed)
        config = configuration(ping_interval=30.0)
        self.rig = Rig(runtime, config=config, fences={HOSTS[0]: self})
        self.rig.server.start()
        self.vm: Json = self.rig.deploy(*self.rig.ready())
        assert self.vm["hostname"] == HOSTS[0]
        self.rig.call("enableHAForHost", hostid=self.vm["hostid"])

    def fence(self) -> None:
        self.fenced += 1

    def passes(self, seconds: float) -> None:
        self.passed += seconds
        with self.rig.records.transaction("time passes") as tx:
            for host in tx.all(HostRow):
                tx.update(host, last_ping=host.last_ping - seconds)

    def poll(self, *, away: bool) -> str:
        """The host's status after it was pinged once."""
        self.rig.hosts[HOSTS[0]].down = away
        self.rig.server.tend()
        return str(self.rig.rows(HostRow, name=HOSTS[0])[0].status)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    runtime = ThreadRuntime("management")
    site = Site(runtime, monkeypatch)
    yield site
    assert site.rig.server.stop()
    runtime.kill()


def test_a_host_is_not_fenced_because_the_server_was_busy(site: Site) -> None:
    site.passes(10 * SILENCE)
    assert (site.poll(away=True), site.fenced) == ("Down", 0), "one ping was not answered"
    site.passes(SILENCE + 1)
    assert (site.poll(away=True), site.fenced) == ("Down", 1)
    assert site.rig.find("virtualmachine", site.vm["id"])["state"] == "Stopped"


def test_an_answer_begins_the_silence_anew(site: Site) -> None:
    for away in (True, False, True):
        site.passes(SILENCE - 10)
        site.poll(away=away)
    site.passes(SILENCE - 10)
    assert (site.poll(away=True), site.fenced) == ("Down", 0)


def test_how_long_a_host_may_be_silent_is_a_setting_of_its_zone(site: Site) -> None:
    """It counts at once, for being Down and for being fenced; the interval is the server's own, and shown."""
    zone_id = site.rig.zone()
    site.rig.call("updateConfiguration", name="ping.timeout", value="10", zoneid=zone_id)
    site.passes(SILENCE + 1)
    assert site.poll(away=True) == "Up"
    site.passes(3 * SILENCE)
    assert (site.poll(away=True), site.fenced) == ("Down", 0), "it has answered no ping for 225 s"
    site.passes(SILENCE)
    assert (site.poll(away=True), site.fenced) == ("Down", 1)
    shown = site.rig.call("listConfigurations", name="ping.interval")["configuration"][0]
    assert shown["value"] == "30" and "configuration file" in shown["description"]
