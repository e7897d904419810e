"""A lab file is used whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.errors import LabFileError
from lab.file import Accelerator, Access, dump, load

GOOD: dict[str, Any] = {
    "version": 1,
    "name": "two racks",
    "storpool": {
        "endpoints": ["192.0.2.1:81", "192.0.2.2:81"],
        "token_file": "/etc/splab/token",
        "cluster_id": "bgu4.b",
        "templates": ["hdd", "ssd"],
    },
    "hosts": [
        {
            "name": name,
            "ssh": {"address": f"192.0.2.{number}", "key_file": "/k", "known_hosts_file": "/kh"},
            "client_id": number,
            "agent_address": f"192.0.2.{number}:8250",
            "agent_directory": "/opt/splab",
            "agent_python": "/opt/splab/bin/python",
            "bridge": "cloudbr0",
            "accelerator": "kvm",
        }
        for number, name in ((11, "kvm1"), (12, "kvm2"))
    ],
    "secondary": {
        "ssh": {"address": "192.0.2.20", "key_file": "/k", "known_hosts_file": "/kh"},
        "nfs_url": "nfs://192.0.2.20/export",
        "export_directory": "/export",
        "agent_address": "192.0.2.20:8250",
        "agent_directory": "/opt/splab",
        "agent_python": "/opt/splab/bin/python",
        "access": "mount",
    },
    "guest_addresses": [{"mac": "02:00:77:00:00:64", "ip": "192.0.2.100"}],
    "guest_image": {
        "url": "http://192.0.2.2/guest.qcow2",
        "virtual_size": 134217728,
        "sha256": "0" * 64,
        "iso_url": "http://10.77.0.1/guest.iso",
        "iso_size": 1 << 20,
        "ssh_user": "root",
        "ssh_key_file": "/g",
    },
    "management": {"api_address": "192.0.2.2:8080", "state_directory": "/var/lib/splab"},
    "tls": {"directory": "/etc/splab/tls"},
}


def copy() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(yaml.safe_dump(GOOD))
    return found


def sections(node: object, path: str = "lab") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from sections(value, f"{path}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from sections(value, f"{path}[{number}]")


def write(tmp_path: Path, raw: object) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_a_good_file_gives_typed_values_and_survives_being_written_and_read_again(tmp_path: Path) -> None:
    lab = load(write(tmp_path, GOOD))
    assert lab.hosts[1].accelerator is Accelerator.KVM
    assert lab.secondary.access is Access.MOUNT
    assert lab.hosts[0].agent_directory == Path("/opt/splab")
    (tmp_path / "again.yaml").write_text(dump(lab))
    assert load(tmp_path / "again.yaml") == lab


@pytest.mark.parametrize("where", [path for path, _ in sections(GOOD)])
def test_an_unknown_key_is_refused_in_every_section_and_named(tmp_path: Path, where: str) -> None:
    raw = copy()
    dict(sections(raw))[where]["colour"] = "blue"
    with pytest.raises(LabFileError, match="colour") as refused:
        load(write(tmp_path, raw))
    assert str(tmp_path / "lab.yaml") in str(refused.value)


REQUIRED = [(path, key) for path, section in sections(GOOD) for key in section]


@pytest.mark.parametrize(("where", "key"), REQUIRED)
def test_a_missing_key_is_refused_and_named(tmp_path: Path, where: str, key: str) -> None:
    raw = copy()
    del dict(sections(raw))[where][key]
    with pytest.raises(LabFileError, match=key):
        load(write(tmp_path, raw))


@pytest.mark.parametrize(("where", "key"), [pair for pair in REQUIRED if pair[1] != "endpoints"])
def test_a_value_of_another_type_is_refused(tmp_path: Path, where: str, key: str) -> None:
    raw = copy()
    section = dict(sections(raw))[where]
    section[key] = 3.5 if not isinstance(section[key], int) else "three"
    with pytest.raises(LabFileError):
        load(write(tmp_path, raw))


@pytest.mark.parametrize("templates", [[], ["one"], ["one", "two", "three"]])
def test_exactly_two_storpool_templates_are_needed(tmp_path: Path, templates: list[str]) -> None:
    raw = copy()
    raw["storpool"]["templates"] = templates
    with pytest.raises(LabFileError, match="templates"):
        load(write(tmp_path, raw))


def test_one_host_is_not_enough(tmp_path: Path) -> None:
    raw = copy()
    raw["hosts"] = raw["hosts"][:1]
    with pytest.raises(LabFileError, match="need two"):
        load(write(tmp_path, raw))


@pytest.mark.parametrize("key", ["name", "client_id"])
def test_two_hosts_cannot_be_the_same(tmp_path: Path, key: str) -> None:
    raw = copy()
    raw["hosts"][1][key] = raw["hosts"][0][key]
    with pytest.raises(LabFileError, match="is there twice"):
        load(write(tmp_path, raw))


def test_a_relative_path_is_refused(tmp_path: Path) -> None:
    raw = copy()
    raw["storpool"]["token_file"] = "token"
    with pytest.raises(LabFileError, match=r"absolute path.*storpool\.token_file"):
        load(write(tmp_path, raw))


def test_a_sum_of_an_idle_image_that_is_not_there_is_refused(tmp_path: Path) -> None:
    raw = copy()
    raw["guest_image"]["idle_sha256"] = "0" * 64
    with pytest.raises(LabFileError, match="no idle_url"):
        load(write(tmp_path, raw))
    raw["guest_image"]["idle_url"] = "http://192.0.2.2/idle.qcow2"
    assert load(write(tmp_path, raw)).guest_image.idle_sha256 == "0" * 64


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabFileError, match="version 2"):
        load(write(tmp_path, copy() | {"version": 2}))


@pytest.mark.parametrize("text", ["", "[]", "version: [1", "just words", "\0"])
def test_what_is_no_lab_file_at_all_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    with pytest.raises(LabFileError, match=r"lab\.yaml"):
        load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabFileError, match="cannot read"):
        load(tmp_path / "none.yaml")
