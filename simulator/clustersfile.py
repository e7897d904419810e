"""The file that names several clusters: those that one process runs, and those that others run.

    {"clusters": [
        {"id": "aa.b", "name": "alpha", "location": "sofia",
         "listen": "127.0.0.1:8181", "state": "alpha", "token_file": "alpha.token"},
        {"id": "aa.c", "name": "beta", "location": "sofia",
         "listen": "127.0.0.1:8182", "state": "beta", "token_file": "beta.token"},
        {"id": "zz.b", "name": "gamma", "location": "varna",
         "url": "http://10.1.2.3:8181", "token_file": "gamma.token"}
    ]}

Paths are relative to the file. On an empty state each cluster has the others registered, with bridges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from simulator.settings import KnownCluster


class ClustersFileError(Exception):
    """The text names the file, the cluster and what is wrong with it."""


_Name = Annotated[str, msgspec.Meta(pattern=r"^(?!list\Z)\#?[A-Za-z0-9_\-.:]+\Z", max_length=63)]


class _Entry(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    id: str
    name: _Name
    location: _Name
    listen: str | None = None
    url: str | None = None
    state: str | None = None
    token_file: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clusters: Annotated[list[_Entry], msgspec.Meta(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True)
class ClusterEntry:
    known: KnownCluster
    listen: str | None
    """`HOST:PORT` of one that this process runs."""
    url: str | None
    """Of one that another process runs."""
    state: Path | None
    token_file: Path | None


def read(path: Path) -> list[ClusterEntry]:
    """Raises `ClustersFileError`."""
    try:
        parsed = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise ClustersFileError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClustersFileError(f"{path}: {error}") from error
    for entry in parsed.clusters:
        trouble = _trouble(entry)
        if trouble:
            raise ClustersFileError(f"{path}: cluster {entry.id!r}: {trouble}")
    for what in ("id", "name", "listen", "url", "state"):
        given = [getattr(entry, what) for entry in parsed.clusters if getattr(entry, what) is not None]
        twice = next((value for value in given if given.count(value) > 1), None)
        if twice is not None:
            raise ClustersFileError(f"{path}: two clusters have the {what} {twice!r}")
    locations = {entry.id.partition(".")[0]: entry.location for entry in parsed.clusters}
    for entry in parsed.clusters:
        if locations[entry.id.partition(".")[0]] != entry.location:
            raise ClustersFileError(f"{path}: location {entry.id.partition('.')[0]!r} has two names")
    if len(set(locations.values())) < len(locations):
        raise ClustersFileError(f"{path}: two locations have one name")
    if not any(entry.listen for entry in parsed.clusters):
        raise ClustersFileError(f"{path}: no cluster has 'listen', so there is nothing to run")
    return [
        ClusterEntry(
            KnownCluster(cluster_id=entry.id, name=entry.name, location=entry.location),
            entry.listen,
            entry.url,
            None if entry.state is None else path.parent / entry.state,
            None if entry.token_file is None else path.parent / entry.token_file,
        )
        for entry in parsed.clusters
    ]


def _trouble(entry: _Entry) -> str | None:
    if not re.fullmatch(r"[a-z0-9]+\.[a-z0-9]+", entry.id):
        return "the id is not LOCATION.SUBCLUSTER in small letters and digits"
    if (entry.listen is None) == (entry.url is None):
        return "give either 'listen', to run it here, or 'url', where it runs"
    if entry.url is not None:
        url = urlsplit(entry.url)
        if url.scheme != "http" or not url.hostname or url.path not in ("", "/") or url.query:
            return f"the url {entry.url!r} is not http://HOST:PORT"
        if entry.state is not None:
            return "'state' belongs to a cluster that is run here"
    return None
