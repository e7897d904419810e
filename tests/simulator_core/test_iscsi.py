"""The iSCSI configuration: what its commands refuse, that a list of them is all or nothing, what becomes of targets."""

from __future__ import annotations

from typing import Any

import pytest
from core_rig import Bindings, bindings

INITIATOR = "iqn.1993-08.org.debian:01:host"
EXPORT = {"initiator": INITIATOR, "portalGroup": "pg", "volumeName": "v"}
READY: list[dict[str, Any]] = [
    {"setBaseName": {"name": "iqn.2019-08.com.example:alpha"}},
    {"createPortalGroup": {"name": "pg"}},
    {"portalGroupAddNetwork": {"portalGroup": "pg", "net": "10.5.0.0/16"}},
    {"createPortal": {"portalGroup": "pg", "controller": 7, "ip": "10.5.0.1"}},
    {"createTarget": {"volumeName": "v"}},
    {"createInitiator": {"name": INITIATOR, "username": "u", "secret": "s"}},
    {"export": EXPORT},
]


@pytest.fixture
def rig() -> Bindings:
    made = bindings()
    made.strict.volumeCreate({"name": "v", "size": 1 << 20})
    made.strict.volumeCreate({"name": "w", "size": 1 << 20})
    return made


def configured(rig: Bindings) -> dict[str, Any]:
    found: dict[str, Any] = rig.strict.iSCSIConfig()["iscsi"]
    return found


def test_what_was_configured_is_shown_also_after_a_restart(rig: Bindings) -> None:
    rig.strict.iSCSIConfigChange({"commands": READY})
    rig.restart()
    shown = configured(rig)
    assert shown["baseName"] == "iqn.2019-08.com.example:alpha"
    assert list(shown["portalGroups"].values()) == [
        {
            "name": "pg",
            "networks": [{"address": "10.5.0.0", "prefix": 16}],
            "portals": [{"controller": 7, "ip": "10.5.0.1", "port": "3260"}],
        }
    ]
    target = "iqn.2019-08.com.example:alpha:v"
    assert list(shown["targets"].values()) == [{"name": target, "volume": "v", "currentControllerId": 7}]
    assert list(shown["initiators"].values()) == [
        {
            "name": INITIATOR,
            "username": "u",
            "secret": "s",
            "nets": [],
            "exports": [{"portalGroup": "pg", "target": target}],
        }
    ]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("objectExists", {"createPortalGroup": {"name": "pg"}}),
        ("objectExists", {"portalGroupAddNetwork": {"portalGroup": "pg", "net": "10.5.1.1/16"}}),
        ("objectExists", {"createPortal": {"portalGroup": "pg", "controller": 1, "ip": "10.5.0.1", "port": 3260}}),
        ("objectExists", {"createTarget": {"volumeName": "v"}}),
        ("objectExists", {"createInitiator": {"name": INITIATOR, "username": "", "secret": ""}}),
        ("objectExists", {"export": EXPORT}),
        ("objectDoesNotExist", {"deletePortalGroup": {"name": "other"}}),
        ("objectDoesNotExist", {"portalGroupAddNetwork": {"portalGroup": "other", "net": "10.0.0.0/8"}}),
        ("objectDoesNotExist", {"deletePortal": {"ip": "10.5.0.2"}}),
        ("objectDoesNotExist", {"createTarget": {"volumeName": "nothing"}}),
        ("objectDoesNotExist", {"deleteTarget": {"volumeName": "w"}}),
        ("objectDoesNotExist", {"deleteInitiator": {"name": "iqn.other"}}),
        ("objectDoesNotExist", {"initiatorAddNetwork": {"initiator": "iqn.other", "net": "0.0.0.0/0"}}),
        ("objectDoesNotExist", {"export": {**EXPORT, "volumeName": "w"}}),
        ("objectDoesNotExist", {"exportDelete": {**EXPORT, "portalGroup": "other"}}),
        ("invalidParam", {"setBaseName": {"name": "iqn.another"}}),
        ("invalidParam", {"deletePortalGroup": {"name": "pg"}}),
        ("invalidParam", {"deleteTarget": {"volumeName": "v"}}),
        ("invalidParam", {"deleteInitiator": {"name": INITIATOR}}),
        ("invalidParam", {"createPortal": {"portalGroup": "pg", "controller": 1, "ip": "10.6.0.1"}}),
        ("invalidParam", {"createPortal": {"portalGroup": "pg", "controller": 4096, "ip": "10.5.0.9"}}),
        ("invalidParam", {"createPortal": {"portalGroup": "pg", "controller": 1, "ip": "10.5.0.9", "port": 0}}),
        ("invalidParam", {"portalGroupAddNetwork": {"portalGroup": "pg", "net": "10.5.0.0/33"}}),
        ("invalidParam", {"createInitiator": {"name": "IQN.Upper", "username": "", "secret": ""}}),
        ("invalidParam", {"createTarget": {"volumeName": "~splab.b.1"}}),
        ("invalidParam", {}),
        ("invalidParam", {"createTarget": {"volumeName": "w"}, "deleteTarget": {"volumeName": "v"}}),
    ],
)
def test_a_command_that_is_refused_takes_those_before_it_along(
    rig: Bindings, name: str, command: dict[str, Any]
) -> None:
    rig.strict.iSCSIConfigChange({"commands": READY})
    before = {"createInitiator": {"name": "iqn.before", "username": "", "secret": ""}}
    assert rig.refuses("POST", "iSCSIConfig", {"commands": [before, command]}) == name


def test_a_target_follows_its_volume_and_keeps_it(rig: Bindings) -> None:
    rig.strict.iSCSIConfigChange({"commands": READY})
    rig.strict.volumeUpdate("v", {"rename": "Other_Name"})
    ((at, target),) = configured(rig)["targets"].items()
    assert target == {
        "name": "iqn.2019-08.com.example:alpha:v",
        "volume": "Other_Name",
        "currentControllerId": 7,
    }
    rig.strict.volumeCreate({"name": "V", "size": 512})
    assert rig.refuses("POST", "iSCSIConfig", {"commands": [{"createTarget": {"volumeName": "V"}}]}) == "objectExists"
    snapshot = rig.strict.snapshotCreate("Other_Name", {})["snapshotGlobalId"]
    rig.strict.volumeRevert("Other_Name", {"toSnapshot": f"~{snapshot}"})
    assert configured(rig)["targets"] == {at: target}
    rig.refused("busy", "volumeDelete", "Other_Name")
    rig.refused("busy", "volumeFreeze", "Other_Name")
    gone = [{"exportDelete": {**EXPORT, "volumeName": "Other_Name"}}, {"deleteTarget": {"volumeName": "Other_Name"}}]
    rig.strict.iSCSIConfigChange({"commands": gone})
    rig.strict.volumeDelete("Other_Name")
    assert configured(rig)["targets"] == {}
