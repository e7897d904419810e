"""`harness.observers.StorPool` over the vendor's own bindings (PyPI `storpool`)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr

import requests

from harness.observers import Json
from lab.errors import LabError

with redirect_stderr(io.StringIO()):  # it says there that simplejson is missing, which it need not be
    from storpool import spapi

CALL_SECONDS = 60
MANY = 1_000_000
"""Calls that a fault of the simulator strikes at most."""


class VendorStorPool:
    def __init__(self, endpoint: str, token: str, *, simulator: bool, several: bool = False) -> None:
        """`endpoint` is `ip:port`; `simulator` says whether the cluster has the control API that tells of its calls.

        With `several` attachments are those of all clusters of the location, with the id of the client's cluster.
        """
        host, _, port = endpoint.rpartition(":")
        self._api = spapi.Api(host=host, port=int(port), auth=token, timeout=CALL_SECONDS)
        across = spapi.Api(host=host, port=int(port), auth=token, timeout=CALL_SECONDS, multiCluster=True)
        self._attachments = across if several else self._api
        self._control = f"http://{endpoint}/_sim" if simulator else None
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Storpool v1:{token}"

    def volumes(self) -> list[Json]:
        return list(self._api.volumesList(returnRawAPIData=True))

    def volume(self, name: str) -> Json | None:
        return self._first(self._api.volumeList, name)

    def snapshots(self) -> list[Json]:
        return list(self._api.snapshotsList(returnRawAPIData=True))

    def snapshot(self, name: str) -> Json | None:
        return self._first(self._api.snapshotList, name)

    def attachments(self) -> list[Json]:
        return list(self._attachments.attachmentsList(returnRawAPIData=True))

    def lose_snapshot(self, name: str) -> None:
        self._api.snapshotDelete(name)

    def update_volume(self, name: str, **changes: object) -> None:
        self._api.volumeUpdate(name, changes)

    def kept(self, bucket: str, key: str) -> str:
        try:
            found = self._api.kvsGet(bucket, key, returnRawAPIData=True)
        except spapi.ApiError as error:
            if error.name == "objectDoesNotExist":
                return ""
            raise
        return str(found.get("pairs", {}).get(key, ""))

    def keep(self, bucket: str, key: str, value: str) -> None:
        if bucket not in self._api.kvsBuckets(returnRawAPIData=True)["buckets"]:
            self._api.kvsCreate(bucket)
        self._api.kvsUpdate(bucket, {"set": {key: value}})

    def make_template(self, name: str, like: str, *, replication: bool = True) -> None:
        shown = self._api.volumeTemplateDescribe(like, returnRawAPIData=True)
        keys = ("placeAll", "placeTail", "placeHead", *(("replication",) if replication else ()))
        self._api.volumeTemplateCreate({"name": name, **{key: shown[key] for key in keys}})

    def remove_template(self, name: str) -> bool:
        try:
            self._api.volumeTemplateDelete(name)
        except spapi.ApiError as error:
            return bool(error.name == "objectDoesNotExist")
        return True

    @contextmanager
    def refusing(self, call: str, name: str, *, for_good: bool = False) -> Iterator[None]:
        if self._control is None:
            raise LabError("the StorPool cluster of this lab is no simulator, so it refuses no call when it is told to")
        kind = {"kind": "refuse", "error": "busy"} if for_good else {"kind": "transient"}
        fault = {"call": call, "object": name, "count": MANY}
        made = self._session.post(f"{self._control}/faults", json=kind | fault, timeout=CALL_SECONDS)
        made.raise_for_status()
        try:
            yield
        finally:
            number = made.json()["data"]["id"]
            self._session.delete(f"{self._control}/faults/{number}", timeout=CALL_SECONDS).raise_for_status()

    def calls(self) -> Mapping[str, int]:
        if self._control is None:
            return {}
        answer = self._session.get(f"{self._control}/calls", timeout=CALL_SECONDS)
        answer.raise_for_status()
        return {str(name): int(count) for name, count in answer.json()["data"]["calls"].items()}

    def _first(self, look_up: object, name: str) -> Json | None:
        assert callable(look_up)
        try:
            found = look_up(name, returnRawAPIData=True)
        except spapi.ApiError as error:
            if error.name == "objectDoesNotExist":
                return None
            raise
        first: Json = found[0]
        return first
