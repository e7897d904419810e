"""The guest image boots from its own disk, on bare QEMU, and is what its facts say."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import image, probe, small_kernel
from lab.file import Accelerator, Ssh
from lab.shell import CommandFailed, run
from lab.ssh import SshHost

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("needs_root")]


KERNELS = [False, True] if small_kernel.built(image.cache_directory()) else [False]
"""The distribution's, and the small one where it was built."""


@pytest.fixture(scope="module", params=KERNELS, ids=["distribution", "small"][: len(KERNELS)])
def guest_image(request: pytest.FixtureRequest) -> image.Image:
    small: bool = request.param
    return image.build(small=small)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port: int = probe_socket.getsockname()[1]
        return port


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def guest(
    guest_image: image.Image, free_port: int, tmp_path: Path
) -> Iterator[tuple[SshHost, subprocess.Popen[bytes]]]:
    """A running guest: its root is the second disk, the first is a decoy, and a third has a serial."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", guest_image.qcow2, tmp_path / "root.qcow2"])
    run(["mke2fs", "-q", "-t", "ext4", tmp_path / "decoy.raw", "16m"])
    (tmp_path / "data.raw").write_bytes(bytes(4 << 20))
    argv = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", "128", "-nodefaults", "-display", "none"]
    argv += ["-serial", f"file:{tmp_path}/serial", "-monitor", f"unix:{tmp_path}/monitor,server,nowait"]
    for name, form in (("decoy", "raw"), ("root", "qcow2"), ("data", "raw")):
        argv += ["-drive", f"file={tmp_path}/{name}.{form},format={form},if=none,discard=unmap,id={name}"]
        boot = ",bootindex=1" if name == "root" else ""
        argv += ["-device", f"virtio-blk-pci,drive={name},serial=disk-{name}{boot}"]
    argv += [
        "-netdev",
        f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{free_port}-:22",
        "-device",
        "virtio-net-pci,netdev=n",
    ]
    ssh = Ssh(
        address="127.0.0.1",
        port=free_port,
        key_file=guest_image.key_file,
        known_hosts_file=guest_image.known_hosts_file.with_name("bare_known_hosts"),
    )
    host_key = guest_image.known_hosts_file.read_text().split(" ", 1)[1]
    ssh.known_hosts_file.write_text(f"[127.0.0.1]:{free_port} {host_key}")
    qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        ready = wait(lambda: image.READY in _serial(tmp_path), 60)
        assert ready, _serial(tmp_path)
        yield SshHost(ssh, shared=False), qemu
    finally:
        qemu.kill()
        qemu.wait(30)


def _serial(tmp_path: Path) -> str:
    path = tmp_path / "serial"
    return path.read_text(errors="replace") if path.exists() else ""


def test_the_guest_answers_ssh_finds_its_root_and_its_disks_and_powers_off_when_asked(
    guest: tuple[SshHost, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    machine, qemu = guest

    def answers() -> bool:
        try:
            return machine.run(["true"], check=False, timeout=15).returncode == 0
        except CommandFailed:
            return False

    assert wait(answers, 30)
    disks = machine.run(
        ["sh", "-c", "for d in /sys/block/vd*; do echo ${d##*/} $(cat $d/serial); done"]
    ).text.splitlines()
    by_serial = {line.split()[1]: line.split()[0] for line in disks}
    assert set(by_serial) == {"disk-decoy", "disk-root", "disk-data"}
    root = by_serial["disk-root"]
    device = machine.run(["stat", "-c", "%d", "/"]).text
    assert machine.run(["cat", f"/sys/block/{root}/{root}2/dev"]).text == f"{int(device) >> 8}:{int(device) & 255}"
    assert " / ext4 rw" in machine.run(["cat", "/proc/mounts"]).text
    data = f"/dev/{by_serial['disk-data']}"
    machine.run(["dd", f"of={data}", "bs=1k", "seek=1024", "conv=fsync,notrunc"], stdin=b"written in the guest")
    assert (tmp_path / "data.raw").read_bytes()[1 << 20 :][:20] == b"written in the guest"
    machine.run(["blkdiscard", data])
    assert machine.run(["sha256sum", data]).text.split()[0] == hashlib.sha256(bytes(4 << 20)).hexdigest()
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(tmp_path / "monitor"))
        monitor.sendall(b"system_powerdown\n")
        assert qemu.wait(30) == 0, "the power button was not heard"


def test_an_idle_guest_says_that_it_is_ready_lets_a_disk_go_and_powers_off_when_asked(
    guest_image: image.Image, tmp_path: Path
) -> None:
    """On the machine that agents define: q35, with disks below ports of their own."""
    (tmp_path / "data.raw").write_bytes(bytes(1 << 20))
    argv = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", "128", "-nodefaults", "-display", "none"]
    argv += ["-serial", f"file:{tmp_path}/serial", "-qmp", f"unix:{tmp_path}/qmp,server,nowait", "-snapshot"]
    for number, (name, form) in enumerate(((str(guest_image.idle), "qcow2"), (f"{tmp_path}/data.raw", "raw")), 1):
        argv += ["-device", f"pcie-root-port,id=port{number},chassis={number}"]
        argv += ["-drive", f"file={name},format={form},if=none,id=drive{number}"]
        argv += ["-device", f"virtio-blk-pci,drive=drive{number},bus=port{number},id=disk{number}"]
    qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        assert wait(lambda: image.READY in _serial(tmp_path), 60), _serial(tmp_path)
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(30)
            monitor.connect(str(tmp_path / "qmp"))
            talk = monitor.makefile("rw")
            for words in ('{"execute": "qmp_capabilities"}', '{"execute": "device_del", "arguments": {"id": "disk2"}}'):
                talk.write(words + "\n")
            talk.flush()
            assert next(line for line in talk if '"DEVICE_DELETED"' in line and '"device": "disk2"' in line)
            talk.write('{"execute": "system_powerdown"}\n')
            talk.flush()
            assert qemu.wait(30) == 0, "the power button was not heard"
    finally:
        qemu.kill()
        qemu.wait(30)


def test_the_facts_are_those_of_the_disk_s_bytes(guest_image: image.Image, tmp_path: Path) -> None:
    for qcow2, sha256 in ((guest_image.qcow2, guest_image.sha256), (guest_image.idle, guest_image.idle_sha256)):
        run(["qemu-img", "convert", "-O", "raw", qcow2, tmp_path / "raw"])
        contents = (tmp_path / "raw").read_bytes()
        assert len(contents) == guest_image.virtual_size
        assert hashlib.sha256(contents).hexdigest() == sha256
    for end in (len(contents) // 2, len(contents)):
        assert len(zlib.compress(contents[end - 4096 : end])) >= 4096, (
            "a copy of the idle image could be cut short there"
        )


def test_a_second_build_is_the_first_one_and_writes_nothing(guest_image: image.Image) -> None:
    before = guest_image.qcow2.stat().st_mtime_ns
    assert guest_image in (image.build(), image.build(small=False))
    assert guest_image.qcow2.stat().st_mtime_ns == before


def test_no_password_and_no_other_key_opens_the_guest(
    guest: tuple[SshHost, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    machine, _ = guest
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"])
    stranger = Ssh(
        address="127.0.0.1",
        port=machine.ssh.port,
        key_file=tmp_path / "other",
        known_hosts_file=machine.ssh.known_hosts_file,
    )
    refused = SshHost(stranger, shared=False).run(["true"], check=False, timeout=30)
    assert refused.returncode == 255
    assert refused.error_text.endswith("Permission denied (publickey).")


def test_the_accelerator_probe_sees_a_guest_that_boots_and_gives_up_on_one_that_cannot() -> None:
    cache = image.cache_directory()
    assert probe.boots("tcg", cache, 60)
    assert not probe.boots("tcg", cache, 0.2)
    assert probe.accelerator(cache) in set(Accelerator)
