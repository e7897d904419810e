"""Locations, clusters and bridges through the vendor's bindings, against a naive model."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from core_rig import bindings
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

NAMES = st.sampled_from(["sofia", "plovdiv", "x.y:z"])
IDS = st.sampled_from(["a", "b2"])
IPS = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"])
KEY = "abc.0def.9.z"


class Registry(RuleBasedStateMachine):
    """Everything is found by what it was given, and nothing that others use goes."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = bindings()
        self.locations: dict[str, dict[str, Any]] = {}
        self.clusters: dict[str, tuple[str, str]] = {}
        """Location and id by name."""
        self.bridges: dict[str, dict[str, Any]] = {}

    def ask(self, name: str | None, call: str, json: dict[str, Any]) -> bool:
        """Whether the call succeeds, which it must unless it is to be refused with this name."""
        if name is not None:
            self.rig.refused(name, call, json)
            return False
        getattr(self.rig.strict, call)(json)
        return True

    @rule(name=NAMES, id=IDS)
    def add_location(self, name: str, id: str) -> None:
        taken = name in self.locations or id in [found["id"] for found in self.locations.values()]
        if self.ask("objectExists" if taken else None, "locationAdd", {"id": id, "name": name}):
            self.locations[name] = {"id": id, "name": name, "sendBufferSize": 0, "recvBufferSize": 0}

    @rule(name=NAMES, send=st.none() | st.integers(0, 1 << 30), receive=st.none() | st.integers(0, 1 << 30))
    def update_location(self, name: str, send: int | None, receive: int | None) -> None:
        sizes = {"sendBufferSize": send, "recvBufferSize": receive}
        sizes = {key: size for key, size in sizes.items() if size is not None}
        missing = None if name in self.locations else "objectDoesNotExist"
        if self.ask(missing, "locationUpdate", {"location": name, **sizes}):
            self.locations[name].update(sizes)

    @rule(name=NAMES, new=NAMES)
    def rename_location(self, name: str, new: str) -> None:
        wrong = None if name in self.locations else "objectDoesNotExist"
        if wrong is None and new != name and new in self.locations:
            wrong = "objectExists"
        if self.ask(wrong, "locationRename", {"location": name, "name": new}):
            self.locations = {(new if key == name else key): found for key, found in self.locations.items()}
            self.locations[new]["name"] = new
            self.clusters = {key: (new if at == name else at, id) for key, (at, id) in self.clusters.items()}
            for bridge in self.bridges.values():
                if bridge["location"] == name:
                    bridge["location"] = new
                    bridge["remote"] = bridge.get("cluster", new)

    @rule(name=NAMES)
    def remove_location(self, name: str) -> None:
        used = [at for at, _ in self.clusters.values()] + [found["location"] for found in self.bridges.values()]
        wrong = "objectDoesNotExist" if name not in self.locations else "busy" if name in used else None
        if self.ask(wrong, "locationRemove", {"location": name}):
            del self.locations[name]

    @rule(location=NAMES, id=IDS, name=st.none() | NAMES)
    def add_cluster(self, location: str, id: str, name: str | None) -> None:
        wrong = None if location in self.locations else "objectDoesNotExist"
        called = name or (f"{self.locations[location]['id']}.{id}" if wrong is None else "")
        if wrong is None and (called in self.clusters or (location, id) in self.clusters.values()):
            wrong = "objectExists"
        json = {"location": location, "id": id, **({} if name is None else {"name": name})}
        if self.ask(wrong, "clusterAdd", json):
            self.clusters[called] = (location, id)

    @rule(location=NAMES, id=IDS, by_name=st.booleans())
    def remove_cluster(self, location: str, id: str, by_name: bool) -> None:
        found = next((name for name, at in self.clusters.items() if at == (location, id)), None)
        json: dict[str, Any] = {"name": found or "none"} if by_name else {"location": location, "id": id}
        used = [bridge.get("cluster") for bridge in self.bridges.values()]
        wrong = "objectDoesNotExist" if found is None else "busy" if found in used else None
        if self.ask(wrong, "clusterRemove", json):
            del self.clusters[found or ""]

    @rule(location=NAMES, id=IDS, new=NAMES)
    def rename_cluster(self, location: str, id: str, new: str) -> None:
        found = next((name for name, at in self.clusters.items() if at == (location, id)), "none")
        wrong = "objectDoesNotExist" if found == "none" else None
        if wrong is None and new != found and new in self.clusters:
            wrong = "objectExists"
        if self.ask(wrong, "clusterRename", {"cluster": found, "name": new}):
            self.clusters = {(new if key == found else key): at for key, at in self.clusters.items()}
            for bridge in self.bridges.values():
                if bridge.get("cluster") == found:
                    bridge["cluster"] = bridge["remote"] = new

    @rule(
        ip=IPS,
        remote=NAMES,
        to_cluster=st.booleans(),
        delay=st.none() | st.integers(0, 99),
        plain=st.none() | st.booleans(),
    )
    def add_bridge(self, ip: str, remote: str, to_cluster: bool, delay: int | None, plain: bool | None) -> None:
        known = self.clusters if to_cluster else self.locations
        wrong = "objectExists" if ip in self.bridges else None if remote in known else "objectDoesNotExist"
        more = {"minimumDeleteDelay": delay, "noCrypto": plain}
        more = {key: value for key, value in more.items() if value is not None}
        json = {"ip": ip, "publicKey": KEY, ("remote" if to_cluster else "location"): remote, **more}
        if self.ask(wrong, "remoteBridgeAdd", json):
            at = self.clusters[remote][0] if to_cluster else remote
            self.bridges[ip] = {"ip": ip, "publicKey": KEY, "location": at, "remote": remote, **more}
            if to_cluster:
                self.bridges[ip]["cluster"] = remote

    @rule(ip=IPS)
    def remove_bridge(self, ip: str) -> None:
        if self.ask(None if ip in self.bridges else "objectDoesNotExist", "remoteBridgeRemove", {"ip": ip}):
            del self.bridges[ip]

    @rule()
    def restart(self) -> None:
        self.rig.restart()

    @invariant()
    def as_the_model_says(self) -> None:
        def ordered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return sorted(items, key=lambda item: str(item.get("ip") or item["name"]))

        strict = self.rig.strict
        assert ordered(strict.locationsList()["locations"]) == ordered(list(self.locations.values()))
        clusters = [{"name": name, "location": at, "id": id} for name, (at, id) in self.clusters.items()]
        assert ordered(strict.clustersList()["clusters"]) == ordered(clusters)
        assert ordered(strict.remoteBridgesList()["remoteBridges"]) == ordered(list(self.bridges.values()))


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("path", "json"),
    [
        ("LocationAdd", {"id": "A", "name": "x"}),
        ("LocationAdd", {"id": "a", "name": "list"}),
        ("LocationAdd", {"id": "a", "name": "x" * 64}),
        ("LocationAdd", {"id": "a"}),
        ("LocationUpdate", {"location": "here", "sendBufferSize": -1}),
        ("ClusterAdd", {"id": "b.c", "location": "here"}),
        ("ClusterRemove", {}),
        ("ClusterRemove", {"name": "x", "location": "here", "id": "b"}),
        ("ClusterRemove", {"location": "here"}),
        ("RemoteBridgeAdd", {"ip": "10.0.0.300", "publicKey": KEY, "location": "here"}),
        ("RemoteBridgeAdd", {"ip": "10.0.0.3", "publicKey": "abc", "location": "here"}),
        ("RemoteBridgeAdd", {"ip": "10.0.0.3", "publicKey": KEY}),
        ("RemoteBridgeAdd", {"ip": "10.0.0.3", "publicKey": KEY, "location": "here", "remote": "x"}),
        ("RemoteBridgeAdd", {"ip": "10.0.0.3", "publicKey": KEY, "location": "here", "minimumDeleteDelay": -1}),
    ],
)
def test_bad_input_is_refused(path: str, json: dict[str, Any]) -> None:
    rig = bindings()
    rig.strict.locationAdd({"id": "a", "name": "here"})
    assert rig.refuses("POST", path, json) == "invalidParam"
