"""Bring the local lab up: StorPool, two KVM hosts and an NFS host in namespaces, and a lab file for them."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests

from lab import image, probe
from lab.errors import LabError, MissingPrerequisite
from lab.file import (
    Accelerator,
    Access,
    GuestAddress,
    GuestImage,
    KvmHost,
    Lab,
    Management,
    SecondaryStorage,
    StorPoolCluster,
    Tls,
    dump,
    load,
)
from lab.file import Site as LabSite
from lab.local import cgroup, credentials, machine_lock, network
from lab.local.down import take_down
from lab.local.layout import (
    AGENT_PORT,
    API_PORT,
    BRIDGE,
    CLIENT_LINK,
    KVM_HOSTS,
    MANAGEMENT,
    MEMBERS,
    SECOND_STORPOOL_PORT,
    SECONDARY,
    SSH_MEMBERS,
    STAND_IN,
    STORPOOL_PORT,
    TEMPLATES,
    Member,
    State,
    default_state,
    guest_addresses,
    login,
)
from lab.local.ledger import Kind, Ledger
from lab.local.machines import MOUNT_POINTS, configure, folder_of, start
from lab.local.site import Site, named
from lab.shell import CommandFailed, Progress, silent
from lab.ssh import SshHost
from simulator.settings import KnownCluster

READY_SECONDS = 90.0
"""How long each part may take to answer; with several labs on slow disks beside each other they take a while."""
START_SECONDS = 10.0
"""After this a machine without a process has not started."""


def up(state_dir: Path | None = None, progress: Progress = silent, site_name: str = "") -> Lab:
    """The lab, brought up first when it is not there or not healthy. About 15 s; with a first guest image 25 s.

    A lab of another site (lab/local/site.py) is taken down. Raises `MissingPrerequisite` or `LabError`; what was half
    done is taken down again.
    """
    site = named(site_name)
    if os.geteuid() != 0:
        raise MissingPrerequisite("the local lab needs root: it makes namespaces, loop devices and guests")
    state = State((state_dir or default_state()).resolve())
    with machine_lock.exclusive():
        machine_lock.refuse_other(state.root)
        lab = _healthy(state)
        if lab is not None and lab.site == site.name:
            return lab
        take_down(state, progress)
        try:
            return _bring_up(state, progress, site)
        except BaseException as error:
            kept = _keep_logs(state)
            take_down(state, progress)
            if isinstance(error, LabError) and kept:
                error.add_note(f"the logs of the lab's machines are kept in {kept}")
            raise


def _keep_logs(state: State) -> Path | None:
    logs = [path for path in (state.root / "members").glob("*/log") if path.is_dir()]
    if not logs:
        return None
    kept = image.cache_directory() / "failed-up"
    shutil.rmtree(kept, ignore_errors=True)
    for path in logs:
        shutil.copytree(path, kept / path.parent.name, ignore_dangling_symlinks=True)
    return kept


def _bring_up(state: State, progress: Progress, site: Site) -> Lab:
    cache = image.cache_directory()
    network.refuse_conflict()
    _refuse_strangers()
    guest = image.build(cache, progress)
    accelerator = probe.accelerator(cache, progress)
    progress("bringing the local lab up")
    machine_lock.OWNER.write_text(str(state.root))
    ledger = Ledger(state.ledger, machine_lock.LEDGER_COPY)
    _directories(state, ledger, site)
    credentials.make(state)
    shutil.copyfile(guest.qcow2, state.images / "guest.qcow2")
    shutil.copyfile(guest.iso, state.images / "guest.iso")
    shutil.copyfile(guest.idle, state.images / "idle.qcow2")
    for directory in MOUNT_POINTS:
        if not directory.exists():
            ledger.record(Kind.DIRECTORY, directory)
            directory.mkdir()
    network.make(ledger)
    ledger.record(Kind.SIMULATOR, state.storpool)
    ledger.record(Kind.SIMULATOR, state.second_storpool)
    ledger.record(Kind.CGROUP, folder_of(""))
    for name in [*(member.name for member in MEMBERS), STAND_IN]:
        folder_of(name).mkdir(parents=True, exist_ok=True)
    for member in MEMBERS:
        start(state, member, configure(state, member, cache, site), folder_of(member.name))
    lab = _describe(state, guest, accelerator, site)
    progress("waiting for the StorPool API")
    _storpool_ready(state)
    if site.second is not None:
        _storpool_ready(state, second=True)
    for member in SSH_MEMBERS:
        progress(f"waiting for {member.name}")
        _machine_ready(state, member)
    partial = state.lab_file.with_suffix(".partial")
    partial.write_text(dump(lab))
    partial.rename(state.lab_file)
    return lab


def _refuse_strangers() -> None:
    """Raises `LabError` for things with the lab's names that no lab owns: this lab did not make them."""
    found = [f"network namespace {name}" for name in network.namespaces()]
    found += [f"link {CLIENT_LINK}"] if network.link_exists(CLIENT_LINK) else []
    found += [f"cgroup {folder_of('')}"] if folder_of("").exists() else []
    if found:
        raise LabError(
            f"{', '.join(found)} exist on this machine, but {machine_lock.OWNER} names no lab that made them;"
            " if they are left from one, write its state directory into that file and run `splab lab down`"
        )


def _directories(state: State, ledger: Ledger, site: Site) -> None:
    for directory in (
        state.keys,
        state.tls,
        state.root / "members",
        state.storpool,
        state.second_storpool,
        state.export,
        state.images,
        state.management,
    ):
        ledger.record(Kind.TREE, directory)
    ledger.record(Kind.FILE, state.clusters_file)
    ledger.record(Kind.FILE, state.lab_file.with_suffix(".partial"))
    ledger.record(Kind.FILE, state.lab_file)
    storpool = (state.storpool,) if site.second is None else (state.storpool, state.second_storpool)
    for directory in (state.root / "members", *storpool, state.export, state.images, state.management):
        directory.mkdir(parents=True, mode=0o700)


def _wait(state: State, member: Member, what: str, condition: Callable[[], bool], seconds: float) -> None:
    begun = time.monotonic()
    log = state.member(member) / "log/init.log"
    while not condition():
        waited = time.monotonic() - begun
        if waited > START_SECONDS and not cgroup.processes(folder_of(member.name)):
            raise LabError(
                f"{member.name} did not start: {log.read_text()[-1000:] if log.exists() else 'it said nothing'}"
            )
        if waited > seconds:
            raise LabError(f"{what} did not answer within {seconds:.0f} s")
        time.sleep(0.1)


def _storpool(
    state: State, call: str, body: dict[str, object] | None = None, *, second: bool = False
) -> requests.Response:
    port, token = (SECOND_STORPOOL_PORT, state.second_token) if second else (STORPOOL_PORT, state.token)
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            "GET" if body is None else "POST",
            f"http://{MANAGEMENT.ip}:{port}/ctrl/1.0/{call}",
            json=body,
            headers={"Authorization": f"Storpool v1:{token.read_text().strip()}"},
            timeout=10,
        )


def storpool_answers(state: State, *, second: bool = False) -> bool:
    """Whether the StorPool API of the lab can be used, or that of its second cluster."""
    try:
        return _storpool(state, "VolumeTemplatesList", second=second).ok
    except requests.RequestException:
        return False


def _storpool_ready(state: State, *, second: bool = False) -> None:
    what = f"the StorPool API at {MANAGEMENT.ip}:{SECOND_STORPOOL_PORT if second else STORPOOL_PORT}"
    _wait(state, MANAGEMENT, what, lambda: storpool_answers(state, second=second), READY_SECONDS)
    for name in TEMPLATES:
        body: dict[str, object] = {"name": name, "placeAll": name, "replication": 3}
        made = _storpool(state, "VolumeTemplateCreate", body, second=second)
        if not made.ok:
            raise LabError(f"StorPool refused to make template {name}: {made.status_code} {made.text[:500]}")


def _answers(state: State, member: Member, command: list[str]) -> bool:
    try:
        return SshHost(login(state, member), shared=False).run(command, check=False, timeout=15).returncode == 0
    except CommandFailed:
        return False


def _sign_of_life(member: Member) -> list[str]:
    if member == SECONDARY:
        return ["/bin/sh", "-c", f"/usr/sbin/rpcinfo -t {member.ip} mountd 3 && /usr/sbin/rpcinfo -t {member.ip} nfs 3"]
    return ["virsh", "--connect", "qemu:///system", "version"]


def _machine_ready(state: State, member: Member) -> None:
    sign = _sign_of_life(member)
    _wait(state, member, f"{member.name} over SSH", lambda: _answers(state, member, sign), READY_SECONDS)


def _healthy(state: State) -> Lab | None:
    """The running lab when everything of it answers."""
    if not state.lab_file.exists() or machine_lock.owner() != state.root:
        return None
    if any(not cgroup.processes(folder_of(member.name)) for member in MEMBERS) or not folder_of(STAND_IN).is_dir():
        return None
    if not storpool_answers(state):
        return None
    for member in SSH_MEMBERS:
        if not _answers(state, member, _sign_of_life(member)):
            return None
    lab = load(state.lab_file)
    if lab.second_storpool is not None and not storpool_answers(state, second=True):
        return None
    return lab


def status(state_dir: Path | None = None) -> list[tuple[str, str, bool]]:
    """(machine, what it shows, whether it is in order) of the local lab; one row that says so when there is none."""
    state = State((state_dir or default_state()).resolve())
    owner = machine_lock.owner()
    if owner is None:
        return [("local lab", "not up; bring it up with: splab lab up", False)]
    machine_lock.refuse_other(state.root)
    rows = [("storpool", f"API at {MANAGEMENT.ip}:{STORPOOL_PORT}", storpool_answers(state))]
    for member in MEMBERS:
        count = len(cgroup.processes(folder_of(member.name)))
        answers = member == MANAGEMENT or (count > 0 and _answers(state, member, _sign_of_life(member)))
        text = f"{member.ip}, {count} processes{'' if answers else ', does not answer over SSH'}"
        rows.append((member.name, text, count > 0 and answers))
    rows.append(("lab file", str(state.lab_file), state.lab_file.exists()))
    return rows


def _cluster(known: KnownCluster, port: int, token_file: Path) -> StorPoolCluster:
    return StorPoolCluster(
        endpoints=(f"{MANAGEMENT.ip}:{port}",),
        token_file=token_file,
        cluster_id=known.cluster_id,
        templates=TEMPLATES,
        simulator=True,
        location=known.location,
    )


def _describe(state: State, guest: image.Image, accelerator: Accelerator, site: Site) -> Lab:
    python = Path(sys.executable)
    return Lab(
        version=1,
        name="local",
        storpool=_cluster(site.first, STORPOOL_PORT, state.token),
        second_storpool=(
            None if site.second is None else _cluster(site.second, SECOND_STORPOOL_PORT, state.second_token)
        ),
        site=LabSite(site.name),
        hosts=tuple(
            KvmHost(
                name=host.name,
                ssh=login(state, host),
                client_id=site.client_id(host),
                second_storpool=site.is_second(host),
                agent_address=f"{host.ip}:{AGENT_PORT}",
                agent_directory=state.member(host) / "agent",
                agent_python=python,
                bridge=BRIDGE,
                accelerator=accelerator,
                cgroup=folder_of(host.name),
            )
            for host in KVM_HOSTS
        ),
        secondary=SecondaryStorage(
            ssh=login(state, SECONDARY),
            nfs_url=f"nfs://{SECONDARY.ip}/export",
            export_directory=state.export,
            agent_address=f"{SECONDARY.ip}:{AGENT_PORT}",
            agent_directory=state.member(SECONDARY) / "agent",
            agent_python=python,
            access=Access.QEMU,
        ),
        guest_addresses=tuple(GuestAddress(mac=mac, ip=ip) for mac, ip in guest_addresses()),
        guest_image=GuestImage(
            url=f"http://{MANAGEMENT.ip}/guest.qcow2",
            virtual_size=guest.virtual_size,
            sha256=guest.sha256,
            iso_url=f"http://{MANAGEMENT.ip}/guest.iso",
            iso_size=guest.iso.stat().st_size,
            idle_url=f"http://{MANAGEMENT.ip}/idle.qcow2",
            idle_sha256=guest.idle_sha256,
            ssh_user="root",
            ssh_key_file=guest.key_file,
            known_hosts_file=guest.known_hosts_file,
        ),
        management=Management(
            api_address=f"{MANAGEMENT.ip}:{API_PORT}",
            network_namespace=MANAGEMENT.netns,
            state_directory=state.management,
            cgroup=folder_of(STAND_IN),
        ),
        tls=Tls(directory=state.tls),
    )
