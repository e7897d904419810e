"""The key-value store through the vendor's bindings, and against a dictionary of dictionaries."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from core_rig import Bindings, bindings
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from simulator.cluster.keyvalue import LONGEST_VALUE

NAMES = st.sampled_from(["a", "b", "#system", "x.y:z-1_"])
KEYS = st.sampled_from(["k", "with/slash", "ü", "a b", "~"])
VALUES = st.sampled_from(["", "1", "other", "line\nbreak"])


class Buckets(RuleBasedStateMachine):
    """Versions grow by one a change, refusals change nothing, and a restart loses nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = bindings()
        self.model: dict[str, tuple[int, dict[str, str]]] = {}

    made = Bundle("made")

    @rule(target=made, name=NAMES)
    def create(self, name: str) -> str:
        if name in self.model:
            self.rig.refused("objectExists", "kvsCreate", name)
        else:
            self.rig.strict.kvsCreate(name)
            self.model[name] = (0, {})
        return name

    @rule(name=consumes(made))
    def delete(self, name: str) -> None:
        if name in self.model:
            self.rig.strict.kvsDelete(name)
            del self.model[name]
        else:
            self.rig.refused("objectDoesNotExist", "kvsDelete", name)

    @rule(name=made, pairs=st.dictionaries(KEYS, VALUES, max_size=4), behind=st.sampled_from([None, 0, 1]))
    def update(self, name: str, pairs: dict[str, str], behind: int | None) -> None:
        if name not in self.model:
            self.rig.refused("objectDoesNotExist", "kvsUpdate", name, {"set": pairs})
            return
        version, before = self.model[name]
        json: dict[str, object] = {"set": pairs}
        if behind is not None:
            json["runIfVersionIs"] = version + behind
        if behind:
            self.rig.refused("runIfVersionIsMismatch", "kvsUpdate", name, json)
            with self.rig.connected():
                assert self.rig.vendor.kvsTryUpdate(name, json) is False
            return
        self.rig.strict.kvsUpdate(name, json)
        after = {key: value for key, value in {**before, **pairs}.items() if value}
        self.model[name] = (version + (after != before), after)

    @rule(name=made, key=KEYS)
    def get(self, name: str, key: str) -> None:
        version, pairs = self.model.get(name, (0, {}))
        if key in pairs:
            assert self.rig.strict.kvsGet(name, key) == {"name": name, "version": version, "pairs": {key: pairs[key]}}
        else:
            self.rig.refused("objectDoesNotExist", "kvsGet", name, key)

    @rule()
    def restart(self) -> None:
        self.rig.restart()

    @invariant()
    def as_the_model_says(self) -> None:
        assert self.rig.strict.kvsBuckets() == {"buckets": {name: version for name, (version, _) in self.model.items()}}
        for name, (version, pairs) in self.model.items():
            assert self.rig.strict.kvsList(name) == {"name": name, "version": version, "pairs": pairs}


TestBuckets = Buckets.TestCase
TestBuckets.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.fixture
def rig() -> Bindings:
    return bindings()


def test_limits_of_names_keys_and_values(rig: Bindings) -> None:
    rig.strict.kvsCreate("n" * 1022)
    for name in ("", "n" * 1023, "a b", "x/y"):
        assert rig.refuses("POST", f"KV/Create/{name}") == "invalidParam"
    rig.strict.kvsCreate("b")
    rig.strict.kvsUpdate("b", {"set": {"k" * 1022: "v" * LONGEST_VALUE}})
    for pairs in ({"k" * 1023: "v"}, {"": "v"}, {"k": "v" * (LONGEST_VALUE + 1)}, {"k": 1}):
        assert rig.refuses("POST", "KV/Set/b", {"set": pairs}) == "invalidParam"
    for version in (-1, "x"):
        assert rig.refuses("POST", "KV/Set/b", {"set": {}, "runIfVersionIs": version}) == "invalidParam"
    assert rig.strict.kvsList("b")["version"] == 1
