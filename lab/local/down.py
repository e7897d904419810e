"""Take the local lab down: walk the ledger backwards, prove each removal by reading back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from lab.errors import LabError, NotOurs
from lab.file import Ssh, load
from lab.local import cgroup, machine_lock, network
from lab.local.layout import CLIENT_LINK, SSH_MEMBERS, State, default_state, guest_addresses, login
from lab.local.ledger import Entry, Kind, Ledger
from lab.local.machines import SIMULATOR, folder_of
from lab.shell import Progress, run, silent
from lab.ssh import SshHost


class LeftOver(LabError):
    """Something of the lab could not be removed; the text lists all of it. The ledger stays, so it may be repeated."""


def down(state_dir: Path | None = None, progress: Progress = silent) -> None:
    """Remove everything that `up` made, also after a crash, a kill of everything or a half-done `up`; twice is fine."""
    state = State((state_dir or default_state()).resolve())
    with machine_lock.exclusive():
        take_down(state, progress)


def take_down(state: State, progress: Progress = silent) -> None:
    """`down` for a caller that holds the lock."""
    machine_lock.refuse_other(state.root)
    ours = machine_lock.owner() == state.root
    ledger = Ledger(state.ledger, machine_lock.LEDGER_COPY if ours else None)
    entries = ledger.entries()
    if ours:
        entries = [entry for entry in _by_prefix(state) if entry not in entries] + entries
    if not entries and not ours:
        return
    progress("taking the local lab down")
    for ssh in [*(login(state, member) for member in SSH_MEMBERS), *_guest_logins(state)]:
        SshHost(ssh).close()
    _stop(entries)
    left = []
    for entry in reversed(entries):
        try:
            REMOVE[entry.kind](entry.name)
        except (LabError, OSError) as error:
            left.append(f"{entry}: {error}")
            continue
        if EXISTS[entry.kind](entry.name):
            left.append(f"{entry}: still there after its removal")
    left += _detach_loops(state.root)
    if left:
        raise LeftOver("the local lab is not wholly down; repeat `splab lab down` after looking at: " + "; ".join(left))
    ledger.remove()
    machine_lock.OWNER.unlink(missing_ok=True)
    if state.root.is_dir() and not any(state.root.iterdir()):
        state.root.rmdir()


def abandoned() -> Path | None:
    """State directory of a lab that the machine remembers and of which nothing runs: everything of it was killed, or
    the machine's disk outlived its processes. Its guests and agents are gone; its volumes are as they were."""
    state = machine_lock.owner()
    return state if state is not None and not cgroup.processes(folder_of("")) else None


def _guest_logins(state: State) -> list[Ssh]:
    """By the lab's own file, for the cache may be another by now; without one that can be read nobody logged in."""
    try:
        guest = load(state.lab_file).guest_image
    except LabError:
        return []
    known_hosts = guest.known_hosts_file or Path("/dev/null")
    return [
        Ssh(address=ip, user=guest.ssh_user, key_file=guest.ssh_key_file, known_hosts_file=known_hosts)
        for _, ip in guest_addresses()
    ]


def _by_prefix(state: State) -> list[Entry]:
    """What carries the lab's names although the ledger may have been lost with the state directory."""
    found = [Entry(Kind.NETNS, name) for name in network.namespaces()]
    if network.link_exists(CLIENT_LINK):
        found.append(Entry(Kind.LINK, CLIENT_LINK))
    found += [Entry(Kind.SIMULATOR, str(path)) for path in (state.storpool, state.second_storpool) if path.exists()]
    found += [Entry(Kind.CGROUP, str(folder_of("")))] if folder_of("").exists() else []
    return found


def _stop(entries: list[Entry]) -> None:
    """Kill every process of the lab. Writers held by a closed gate of the simulator die once it is lifted, so the
    simulator's own clean-up runs between the kill and the wait for its end."""
    folders = [Path(entry.name) for entry in entries if entry.kind is Kind.CGROUP]
    for folder in folders:
        cgroup.kill(folder)
    if not all(cgroup.wait_empty(folder, seconds=5) for folder in folders):
        for entry in entries:
            if entry.kind is Kind.SIMULATOR:
                _remove_simulator(entry.name)


def _remove_cgroup(name: str) -> None:
    try:
        cgroup.remove(Path(name))
    except OSError as error:
        raise LabError(f"cannot remove cgroup {name}: {error}") from error


def _remove_simulator(name: str) -> None:
    if Path(name).exists():
        run([*SIMULATOR, "--state", name, "--destroy"], timeout=120)


def _remove_tree(name: str) -> None:
    path = Path(name)
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [mount for mount in mounted if Path(mount).is_relative_to(path)]
    if inside:
        raise NotOurs(f"{', '.join(inside)} is still mounted below {path}, so nothing there is deleted")
    if loop_devices(path):
        raise LabError(
            f"loop devices {', '.join(loop_devices(path))} still lead into {path}, so nothing there is deleted"
        )
    if path.is_dir():
        shutil.rmtree(path)


def loop_devices(directory: Path) -> list[str]:
    """Loop devices whose backing file lies below `directory`."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = backing.read_text().strip().removesuffix(" (deleted)")
        except OSError:
            continue
        if Path(file).is_relative_to(directory):
            found.append(f"/dev/{backing.parent.parent.name}")
    return sorted(found)


def _detach_loops(directory: Path) -> list[str]:
    """Detach what still leads into `directory`, for instance into files that were deleted under a running lab.

    `losetup -d` of a busy device succeeds and takes effect later, so the answer is what is there after a while.
    """
    for device in loop_devices(directory):
        run(["losetup", "-d", device], check=False)
    deadline = time.monotonic() + 5
    while loop_devices(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [f"loop device {device} is busy" for device in loop_devices(directory)]


def _remove_directory(name: str) -> None:
    try:
        Path(name).rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LabError(f"cannot remove {name}: {error}") from error


def _remove_file(name: str) -> None:
    Path(name).unlink(missing_ok=True)


REMOVE: dict[Kind, Callable[[str], None]] = {
    Kind.CGROUP: _remove_cgroup,
    Kind.SIMULATOR: _remove_simulator,
    Kind.TREE: _remove_tree,
    Kind.DIRECTORY: _remove_directory,
    Kind.FILE: _remove_file,
    Kind.LINK: network.remove_link,
    Kind.NETNS: network.remove_namespace,
    Kind.NETNS_ROOT: lambda _: network.remove_netns_root(),
}

EXISTS: dict[Kind, Callable[[str], bool]] = {
    Kind.CGROUP: lambda name: Path(name).exists(),
    Kind.SIMULATOR: lambda name: bool(loop_devices(Path(name))),
    Kind.TREE: lambda name: Path(name).exists(),
    Kind.DIRECTORY: lambda name: Path(name).exists(),
    Kind.FILE: lambda name: Path(name).exists(),
    Kind.LINK: network.link_exists,
    Kind.NETNS: lambda name: (network.NETNS_ROOT / name).exists(),
    Kind.NETNS_ROOT: lambda _: network.is_mounted(network.NETNS_ROOT) and not any(network.NETNS_ROOT.iterdir()),
}
