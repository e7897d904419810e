"""The agent's way to the StorPool API follows its host's configuration."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from agent_fakes import FakeHost, Rig

from harness.agent.config import AgentConfig
from harness.agent.following import FollowingTransport
from harness.spi.errors import InvalidParameter
from harness.storpool import HostConfiguration, NotSent, Reply, Request, Transport

CONF = "/etc/storpool.conf"
CALL = Request("POST", "MultiCluster/VolumeCreate", b"{}", 5.0)
CONFIG = AgentConfig(host_uuid="h", host_name="kvm1", storpool_conf_directory=None)


class Site:
    """An API that takes one token at one endpoint; `sent` are the tokens it was asked with."""

    def __init__(self) -> None:
        self.token, self.endpoint = "right", "api:81"
        self.host = ConfHost(Rig())
        self.sent: list[str] = []
        self.at_call: Callable[[], object] = lambda: None

    def configure(self, token: str = "right", api: str = "api") -> None:
        self.host.text = f"SP_OURID=2\nSP_API_HTTP_HOST={api}\nSP_API_HTTP_PORT=81\nSP_AUTH_TOKEN={token}\n"

    def connect(self, settings: HostConfiguration) -> Transport:
        site = self

        class Wire:
            def call(self, request: Request) -> Reply:
                assert request == CALL
                at_call, site.at_call = site.at_call, lambda: None
                at_call()
                if settings.endpoints != (site.endpoint,):
                    raise NotSent(f"{settings.endpoints}: refused")
                site.sent.append(settings.token.reveal())
                return Reply(200 if settings.token.reveal() == site.token else 401, b"{}")

        return Wire()

    def transport(self) -> FollowingTransport:
        return FollowingTransport(self.host, CONFIG, self.connect)


class ConfHost(FakeHost):
    text = ""

    def read_text(self, path: str) -> str:
        assert path == CONF
        return self.text


def test_a_token_that_was_refused_is_read_again_and_the_call_made_once_more() -> None:
    site = Site()
    site.configure("old=token")
    transport = site.transport()
    assert transport.call(CALL).status == 401, "nothing has changed, so nothing is tried again"
    assert site.sent == ["old=token"]
    site.configure()
    assert transport.call(CALL).status == 200
    assert site.sent == ["old=token", "old=token", "right"]


def test_an_api_that_moved_is_found_and_one_that_works_is_not_looked_for() -> None:
    site = Site()
    site.configure()
    transport = site.transport()
    site.configure(api="elsewhere")
    assert transport.call(CALL).status == 200, "what works is used"
    site.endpoint = "elsewhere:81"
    assert transport.call(CALL).status == 200
    site.endpoint = "nowhere:81"
    with pytest.raises(NotSent):
        transport.call(CALL)


def test_a_configuration_that_cannot_be_used_keeps_the_agent_from_starting_and_later_changes_nothing() -> None:
    site = Site()
    site.host.text = "no configuration\n"
    with pytest.raises(InvalidParameter):
        site.transport()
    site.configure("old")
    transport = site.transport()
    site.host.text = "no configuration\n"
    assert transport.call(CALL).status == 401
    assert site.sent == ["old"]


def test_a_call_that_was_refused_while_another_one_found_the_change_is_made_once_more_too() -> None:
    site = Site()
    site.configure("old")
    transport = site.transport()
    site.configure()
    site.at_call = lambda: transport.call(CALL)
    assert transport.call(CALL).status == 200
    assert site.sent == ["old", "right", "old", "right"]
