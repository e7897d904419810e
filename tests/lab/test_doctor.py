"""The doctor names each missing thing with the command that supplies it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab import claim, commands, doctor
from lab.errors import LabError
from lab.file import (
    Accelerator,
    Access,
    GuestImage,
    KvmHost,
    Lab,
    Management,
    SecondaryStorage,
    Ssh,
    StorPoolCluster,
    Tls,
)
from lab.local import layout, machine_lock


@pytest.fixture
def dead_lab(tmp_path: Path) -> Lab:
    """A lab none of whose addresses answers: this machine's discard port."""
    (tmp_path / "token").write_text("1234567890123456789")
    ssh = Ssh(address="127.0.0.1", port=9, key_file=tmp_path / "key", known_hosts_file=tmp_path / "known")
    hosts = tuple(
        KvmHost(
            name=f"kvm{number}",
            ssh=ssh,
            client_id=number,
            agent_address="127.0.0.1:9",
            agent_directory=tmp_path,
            agent_python=tmp_path / "python",
            bridge="cloudbr0",
            accelerator=Accelerator.TCG,
        )
        for number in (1, 2)
    )
    return Lab(
        version=1,
        name="dead",
        storpool=StorPoolCluster(
            endpoints=("127.0.0.1:9",), token_file=tmp_path / "token", cluster_id="a.b", templates=("hdd", "ssd")
        ),
        hosts=hosts,
        secondary=SecondaryStorage(
            ssh=ssh,
            nfs_url="nfs://127.0.0.1/export",
            export_directory=tmp_path,
            agent_address="127.0.0.1:9",
            agent_directory=tmp_path,
            agent_python=tmp_path / "python",
            access=Access.QEMU,
        ),
        guest_addresses=(),
        guest_image=GuestImage(
            url="http://x",
            virtual_size=1,
            sha256="0" * 64,
            iso_url="http://x.iso",
            iso_size=1,
            ssh_user="root",
            ssh_key_file=tmp_path,
        ),
        management=Management(api_address="127.0.0.1:9", state_directory=tmp_path),
        tls=Tls(directory=tmp_path),
    )


def test_a_machine_that_does_not_answer_is_one_finding_with_the_command_to_try_by_hand(dead_lab: Lab) -> None:
    found = {finding.where: finding for finding in doctor.examine_lab(dead_lab) if "SSH" in finding.what}
    assert set(found) == {"kvm1", "kvm2", "secondary"}
    assert not any(finding.ok for finding in found.values())
    assert f"ssh -i {dead_lab.hosts[0].ssh.key_file} -p 9 root@127.0.0.1" in found["kvm1"].supply


def test_a_storpool_api_that_does_not_answer_is_found_and_its_token_is_not_shown(dead_lab: Lab) -> None:
    texts = [str(finding) for finding in doctor.examine_lab(dead_lab)]
    assert any("StorPool API at 127.0.0.1:9" in text and "endpoints and token_file" in text for text in texts)
    assert not any("1234567890123456789" in text for text in texts)


def test_missing_certificates_are_named_for_every_side(dead_lab: Lab) -> None:
    texts = " ".join(str(finding) for finding in doctor.examine_lab(dead_lab))
    for name in ("management", "secondary", "kvm1", "kvm2"):
        assert f"{name}.pem" in texts
        assert f"{name}.key" in texts


def test_missing_packages_are_listed_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "wanted_packages", lambda: ["splab-no-such-package", "splab-nor-this"])
    texts = [str(finding) for finding in doctor.examine_machine(tmp_path) if not finding.ok]
    assert any(
        text.endswith("apt-get install --no-install-recommends splab-no-such-package splab-nor-this") for text in texts
    ) or any("dpkg" in text for text in texts)


def test_every_line_of_the_package_list_is_a_package_with_its_reason() -> None:
    lines = [line for line in doctor.PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    assert all(len(line.split("#")) == 2 and len(line.split("#")[0].split()) == 1 for line in lines), lines
    assert len(set(doctor.wanted_packages())) == len(lines)


def test_a_lab_of_another_state_directory_is_reported_by_status_and_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_lock, "OWNER", tmp_path / "owner")
    (tmp_path / "owner").write_text("/var/lib/elsewhere")
    done = CliRunner().invoke(commands.lab, ["status", "--state", str(tmp_path)])
    assert done.exit_code == 1
    assert "SPLAB_STATE=/var/lib/elsewhere splab lab down" in done.output
    assert any("/var/lib/elsewhere" in str(finding) for finding in doctor.examine_machine(tmp_path))


def test_status_without_a_lab_says_how_to_get_one_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_lock, "OWNER", tmp_path / "owner")
    done = CliRunner().invoke(commands.lab, ["status", "--state", str(tmp_path)])
    assert (done.exit_code, "splab lab up" in done.output) == (1, True)


@pytest.mark.parametrize("command", ["up", "down"])
@pytest.mark.parametrize("spelled", [("--state", "."), ("--lab", "lab.yaml"), ("--state", ".", "--lab", "lab.yaml")])
def test_the_local_lab_is_named_by_its_state_or_its_lab_file(
    command: str, spelled: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path | None] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claim, "LOCAL", tmp_path / "claim")
    monkeypatch.setattr(commands, f"bring_{command}", lambda state, *_: asked.append(state and state.resolve()))
    done = CliRunner().invoke(commands.lab, [command, *spelled])
    assert (done.exit_code, asked) == (0, [tmp_path.resolve()]), done.output


@pytest.mark.parametrize("command", ["up", "down", "status"])
@pytest.mark.parametrize("name", ["lab.yaml", "site.yaml"])
def test_a_real_labs_file_is_neither_brought_up_nor_down(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_lock, "OWNER", tmp_path / "owner")
    for work in ("bring_up", "bring_down", "local_status"):
        monkeypatch.setattr(commands, work, lambda *_: pytest.fail("the lab was touched"))
    (tmp_path / name).write_text("version: 1\n")
    done = CliRunner().invoke(commands.lab, [command, "--lab", str(tmp_path / name)])
    assert done.exit_code == 1 and f"splab lab doctor --lab {tmp_path / name}" in done.output, done.output


def test_down_knows_its_lab_by_a_relative_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Path] = []
    module = importlib.import_module("lab.local.down")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine_lock, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(module, "take_down", lambda state, _progress: taken.append(state.root))
    module.down(Path("state"))
    assert taken == [tmp_path.resolve() / "state"]


def test_an_unusable_lab_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("version: 1\ncolour: blue\n")
    done = CliRunner().invoke(commands.lab, ["doctor", "--lab", str(tmp_path / "lab.yaml")])
    assert done.exit_code == 1
    assert done.output.startswith("Error: lab file")
    assert isinstance(done.exception, SystemExit)


def test_up_without_root_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.local.up import up

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root"):
        up(layout.default_state())
