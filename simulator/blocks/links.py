"""The directories of symlinks through which each client sees its devices (spec/storpool-api.md section 10.2).

STATE/clients/ID/storpool/NAME            shown to the host as /dev/storpool
STATE/clients/ID/storpool-byid/GLOBALID   shown to the host as /dev/storpool-byid

Hosts bind-mount the directories, so they are never replaced while a simulator's state exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from simulator.ports import BlocksError, Links

_FOLDERS = ("storpool", "storpool-byid")


def client_directories(state: Path, client: int) -> tuple[Path, Path]:
    """Where the client's /dev/storpool and /dev/storpool-byid lie; made if they are not there."""
    parent = clients_directory(state) / str(client)
    by_name, by_id = (parent / name for name in _FOLDERS)
    for folder in (by_name, by_id):
        folder.mkdir(parents=True, exist_ok=True)
    return by_name, by_id


def clients_directory(state: Path) -> Path:
    return state / "clients"


def link_paths(state: Path, links: Links) -> set[Path]:
    """The paths of all its links."""
    by_name, by_id = client_directories(state, links.client)
    for name in (*links.names, *links.by_id):
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise BlocksError(f"{name!r} cannot be the name of a device of client {links.client}")
    return {by_name / name for name in links.names} | {by_id / name for name in links.by_id}


def point(path: Path, target: str) -> bool:
    """Make the link lead to `target` in one step; whether anything changed."""
    try:
        path.symlink_to(target)
        return True
    except FileExistsError:
        if path.is_symlink() and path.readlink() == Path(target):
            return False
    # Beside the directory that hosts see, so that they never list it; the name is as unique as the link's own.
    new = path.parent.parent / f".new-{path.parent.name}-{path.name}"
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(path)
    return True


def remove(paths: set[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def all_links(state: Path) -> Iterator[Path]:
    """Every entry of every client's directories, and what interrupted changes left beside them."""
    for parent in sorted(clients_directory(state).glob("*")):
        for name in _FOLDERS:
            yield from sorted((parent / name).glob("*"))
            yield from sorted((parent / name).glob(".*"))
        yield from sorted(parent.glob(".new-*"))
