"""StorPool's command-line tools as processes, against a simulator over HTTP, read back by the vendor's bindings."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from storpool.spapi import Api, ApiError

from simulator.commands.install import install

ROOT = Path(__file__).parents[2]
TOKEN = "1234567890123456789"
SECONDS = 30.0
MB = 1 << 20


@dataclass(frozen=True)
class Host:
    """A host with the commands on its PATH, and the bindings beside them."""

    api: Api
    etc: Path
    commands: Path
    away: Path
    """Where they are run: modules that lie there are none of theirs."""

    def run(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.execute([str(self.commands / argv[0]), *argv[1:]], environment)

    def execute(self, argv: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "SPLAB_ETC": str(self.etc), **environment}
        done = subprocess.run(
            argv, cwd=self.away, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert "Traceback" not in done.stderr and TOKEN not in done.stderr
        return done

    def ok(self, *words: str) -> None:
        """`storpool WORDS` changes something, and says so."""
        done = self.run("storpool", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")

    def data(self, *words: str) -> Any:
        """What `storpool -j WORDS` finds."""
        done = self.run("storpool", "-j", *words)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)["data"]

    def error(self, *words: str) -> str:
        """The name of the error of a command that fails, from the envelope that a JSON reader gets."""
        done = self.run("storpool", "-Mj", *words)
        assert (done.returncode, done.stderr) == (1, "")
        return str(json.loads(done.stdout)["error"]["name"])

    def told(self, *words: str) -> str:
        """What a command that fails tells people."""
        done = self.run("storpool", *words)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    def volume(self, name: str) -> Any:
        return self.api.volumeList(name)[0]

    def snapshot(self, name: str) -> Any:
        return self.api.snapshotList(name)[0]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Client 1 of a simulator whose templates are `t` and `u`."""
    directory = tmp_path_factory.mktemp("host")
    argv = [sys.executable, "-m", "simulator.main", "--listen", "127.0.0.1:0", "--blocks", "memory"]
    process = subprocess.Popen(
        argv, cwd=ROOT, env={"PATH": os.environ["PATH"], "SPLAB_TOKEN": TOKEN}, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("ready http://127.0.0.1:")
            port = int(line.rsplit(":", 1)[1])
            etc, away = directory / "etc", directory / "away"
            etc.mkdir()
            (away / "storpool").mkdir(parents=True)
            (away / "json.py").write_text("raise SystemExit('a stranger')")
            (etc / "storpool.conf").write_text(
                f"SP_CLUSTER_ID=splab.b\nSP_API_HTTP_PORT={port}\nSP_AUTH_TOKEN={TOKEN}\nSP_OURID=9\n"
                f"[{platform.node()}]\nSP_OURID=1\n[other]\nSP_OURID=2\n"
            )
            install(directory / "commands")
            api = Api(host="127.0.0.1", port=port, auth=TOKEN, transientRetries=0, timeout=SECONDS)
            for template in ("t", "u"):
                api.volumeTemplateCreate({"name": template, "placeAll": "hdd", "replication": 3})
            yield Host(api, etc, directory / "commands", away)
        finally:
            process.kill()


def test_volumes_are_made_changed_and_deleted(host: Host) -> None:
    host.ok("volume", "made", "size", "10M", "template", "t", "create")
    host.ok("volume", "made", "tag a=b tag c=d ", "update")
    host.ok("volume", "made", "size", "20M", "update")
    host.ok("-M", "volume", f"~{host.volume('made').globalId}", "update", "size", str(5 * MB), "shrinkOk")
    made = host.volume("made")
    assert (made.size, made.templateName, made.tags) == (5 * MB, "t", {"a": "b", "c": "d"})
    host.ok("volume", "made", "rename", "renamed", "template", "u", "tag", "a=", "update")
    renamed = host.volume("renamed")
    assert (renamed.globalId, renamed.templateName, renamed.tags) == (made.globalId, "u", {"c": "d"})
    host.ok("volume", "renamed", "rename", "again")
    host.ok("volume", "again", "template", "t", "update")
    host.ok("volume", "again", "iops 500 bw - update")
    assert (host.volume("again").templateName, host.volume("again").iops) == ("t", 500)
    assert "repeat the name" in host.told("volume", "again", "delete")
    assert "'other' after delete" in host.told("-B", "volume", "again", "delete", "other")
    assert host.volume("again").globalId == made.globalId
    host.ok("volume", "again", "delete", "again")
    assert host.error("volume", "again", "delete", "again") == "objectDoesNotExist"
    assert "objectDoesNotExist: Volume 'again'" in host.told("-B", "volume", "again", "delete")


def test_snapshots_copies_and_frozen_volumes(host: Host) -> None:
    host.ok("volume", "source", "size", "1M", "template", "t", "create")
    host.ok("volume", "source", "snapshot", "first")
    host.ok("volume", "source", "tag x=y", "bound", "snapshot")
    taken = host.snapshot(host.volume("source").parentName)
    assert (taken.bound, taken.tags, taken.parentName) == (True, {"x": "y"}, "first")
    host.ok("volume", "source", "snapshot", "deleteAfter", "2h")
    taken = host.snapshot(host.volume("source").parentName)
    assert taken.targetDeleteDate - taken.creationTimestamp == 7200
    host.ok("snapshot", "first", "tag", "p=q", "tag", "r=s")
    assert host.snapshot("first").tags == {"p": "q", "r": "s"}
    host.ok("volume", "child", "parent", "first", "template", "u", "create")
    assert (host.volume("child").parentName, host.volume("child").templateName) == ("first", "u")
    host.ok("volume", "copy", "baseOn", "source", "create")
    host.ok("volume", "copy", "freeze")
    assert host.snapshot("copy").size == MB
    host.ok("-M", "snapshot", "copy", "delete", "copy")
    with pytest.raises(ApiError, match="objectDoesNotExist"):
        host.api.snapshotList("copy")


def test_attachments(host: Host) -> None:
    def attached(name: str) -> set[tuple[int, str]]:
        return {(found.client, found.rights) for found in host.api.attachmentsList() if found.volume == name}

    host.ok("volume", "disk", "size", "1M", "create")
    host.ok("volume", "disk", "snapshot", "image")
    identity = f"~{host.volume('disk').globalId}"
    host.ok("-M", "attach", "volume", identity, "here", "onRemoteAttached", "export")
    host.ok("attach", "volume", "disk", "mode", "ro", "client 2", "timeout", "10")
    host.ok("volume", "disk", "attach", "client", "3", "mode", "ro")
    assert attached("disk") == {(1, "rw"), (2, "ro"), (3, "ro")}
    host.ok("attach", "snapshot", "image", "mode", "ro", "client", "2", "noWait")
    host.ok("-M", "attach", "snapshot", "image", "here", "onRemoteAttached", "export")
    assert attached("image") == {(1, "ro"), (2, "ro")}
    listed = [entry for entry in host.data("attach", "list") if entry["volume"] == "image"]
    assert [(entry["client"], entry["snapshot"]) for entry in listed] == [(1, True), (2, True)]
    assert host.error("volume", "disk", "delete", "disk") == "busy"
    host.ok("detach", "volume", "disk", "client", "2", "force", "yes")
    host.ok("-M", "detach", "volume", identity, "here")
    assert attached("disk") == {(3, "ro")}
    host.ok("detach", "volume", "disk", "all")
    host.ok("detach", "snapshot", "image", "all")
    assert attached("disk") == attached("image") == set()
    assert host.error("attach", "volume", "disk", "client", "4000") == "invalidParam"
    assert host.error("attach", "volume", "nix", "here") == "objectDoesNotExist"


def test_templates(host: Host) -> None:
    def template() -> Any:
        return host.api.volumeTemplateDescribe("mine")

    words = ["replication", "2", "placeAll", "hdd", "placeTail", "ssd"]
    host.ok("template", "mine", *words, "iops", "100", "propagate")
    assert (template().replication, template().placeHead, template().placeTail, template().iops) == (
        2,
        "hdd",
        "ssd",
        100,
    )
    host.ok("volume", "follower", "size", "1M", "template", "mine", "create")
    host.ok("template", "mine", "replication", "3", "placeAll", "hdd", "placeHead", "ssd", "bw", "10")
    assert (template().replication, template().placeHead, template().bw) == (3, "ssd", 10)
    assert host.volume("follower").replication == 2
    host.ok("template", "mine", "propagate", "yes")
    assert host.volume("follower").replication == 3
    assert host.error("template", "nix", "propagate") == "objectDoesNotExist"
    assert host.error("template", "mine", "create", "placeAll", "hdd") == "objectExists"
    assert host.error("template", "mine", "delete", "mine") == "busy"


def test_questions_are_answered_in_the_api_s_envelope(host: Host) -> None:
    host.ok("volume", "asked", "size", "3M", "template", "t", "tag", "type=CDROM", "create")
    host.ok("volume", "asked", "snapshot", "answer")

    def named(name: str, *words: str) -> Any:
        return next(entry for entry in host.data(*words) if entry["name"] == name)

    info = host.data("volume", "asked", "info")
    assert (info["size"], info["parentName"], info["templateName"]) == (3 * MB, "answer", "t")
    assert info["tags"] == {"type": "CDROM"}
    assert host.data("snapshot", "answer", "info")["size"] == 3 * MB
    assert named("asked", "volume", "list")["parentName"] == "answer"
    assert {"storedSize", "spaceUsed"} <= set(named("asked", "volume", "usedSpace"))
    assert host.data("volume", "status")["asked"]["storedSize"] == 0
    assert host.data("volume", "quickStatus")["asked"]["status"] == "up"
    assert named("answer", "snapshot", "list")["onVolume"] == "asked"
    assert {"storedSize", "spaceUsed"} <= set(named("answer", "snapshot", "space"))
    assert named("t", "template", "list")["placeAll"] == "hdd"
    assert named("t", "template", "status")["stored"]["capacity"] > 0
    clients = host.data("service", "list")["clients"]
    assert {client["nodeId"]: client["status"] for client in clients.values()}[1] == "running"
    assert host.api.locationAdd({"id": "far", "name": "Far"}).ok
    host.api.clusterAdd({"id": "c", "location": "Far", "name": "FarC"})
    assert [(found["id"], found["name"]) for found in host.data("location", "list")["locations"]][-1] == ("far", "Far")
    assert [(found["id"], found["name"]) for found in host.data("cluster", "list")["clusters"]][-1] == ("c", "FarC")
    for ip, name in (("10.0.0.1", "Far"), ("10.0.0.2", "FarC")):
        host.ok("remoteBridge", "register", ip, name, "a.b.c.d", "minimumDeleteDelay", "1m")
    bridges = {bridge.ip: bridge for bridge in host.api.remoteBridgesList()["remoteBridges"]}
    assert (bridges["10.0.0.1"].location, bridges["10.0.0.1"].minimumDeleteDelay) == ("Far", 60)
    assert bridges["10.0.0.2"].cluster == "FarC"
    host.ok("remoteBridge", "deregister", "10.0.0.1")
    assert "10.0.0.1" not in {bridge.ip for bridge in host.api.remoteBridgesList()["remoteBridges"]}


def test_people_get_tables_with_the_same_in_them(host: Host) -> None:
    host.ok("volume", "shown", "size", "1536M", "template", "t", "tag", "k=v", "create")
    host.ok("volume", "shown", "snapshot", "still")
    host.ok("attach", "volume", "shown", "here")
    for words, expected in {
        "volume list": {"shown", "1536M", "k=v", "still"},
        "volume usedSpace": {"shown", "1536M"},
        "volume status": {"shown", "up"},
        "volume quickStatus": {"shown", "up"},
        "snapshot list": {"still", "shown"},
        "snapshot space": {"still", "shown"},
        "attach list": {"shown", "rw"},
        "template list": {"t", "hdd"},
        "template status": {"t", "hdd"},
        "service list": {"clients", "running"},
        "location list": {"id", "name"},
        "cluster list": {"id", "name", "location"},
        "volume shown info": {"1536M", "k=v"},
    }.items():
        done = host.run("storpool", words)
        assert (done.returncode, done.stderr) == (0, "")
        assert expected <= set(done.stdout.split()), words
    host.ok("detach", "volume", "shown", "here")


def test_failures_without_an_answer_have_the_api_s_shape_too(host: Host, tmp_path: Path) -> None:
    assert host.error("volume", "v", "frobnicate") == "cliParseArgs"
    assert "'frobnicate'" in host.told("volume", "v", "frobnicate")
    assert "unknown option '-x'" in host.told("-x", "volume", "list")
    with pytest.raises(ApiError) as refused:
        host.api.volumeBackup({"volume": "v", "location": "L"})
    assert host.error("volume", "v", "backup", "L") == refused.value.name
    closed = host.run("storpool", "-j", "volume", "list", SP_API_HTTP_HOST="127.0.0.1", SP_API_HTTP_PORT="1")
    assert (closed.returncode, closed.stderr) == (1, "")
    assert json.loads(closed.stdout)["error"]["name"] == "unavailable"
    wrong = host.run("storpool", "volume", "list", SP_AUTH_TOKEN="99")
    assert wrong.returncode == 1 and wrong.stderr.startswith("Error: accessDenied: ")
    (tmp_path / "storpool.conf").write_text(f"SP_AUTH_TOKEN={TOKEN}\n")
    nowhere = host.run("storpool", "attach", "volume", "v", "here", SPLAB_ETC=str(tmp_path))
    assert nowhere.returncode == 1 and "SP_OURID is not set" in nowhere.stderr
    missing = host.run("storpool", "volume", "list", SPLAB_ETC=str(tmp_path / "nix"))
    assert missing.returncode == 1 and f"{tmp_path}/nix/storpool.conf: No such file" in missing.stderr
    (tmp_path / "storpool.conf").write_text(f"SP_AUTH_TOKEN {TOKEN}\n")
    malformed = host.run("storpool", "volume", "list", SPLAB_ETC=str(tmp_path))
    assert malformed.returncode == 1 and "neither a setting" in malformed.stderr


def test_the_vendor_s_storpool_req_serves_as_it_is(host: Host) -> None:
    def req(*argv: str) -> subprocess.CompletedProcess[str]:
        return host.run("storpool_req", *argv)

    host.ok("volume", "req", "size", "1M", "create")
    body = json.dumps({"template": "t", "size": str(MB), "tags": {"cs": "template"}})
    made = req("-P", "-M", "--json", body, "VolumeCreate")
    assert made.returncode == 0
    name = json.loads(made.stdout)["name"]
    assert host.volume(name).size == MB
    taken = req("-P", "-M", "--json", json.dumps({"template": "t"}), "VolumeSnapshot", name)
    assert host.snapshot("~" + json.loads(taken.stdout)["snapshotGlobalId"]).onVolume == name
    assert json.loads(req("Volume", name).stdout)[0]["name"] == name
    assert json.loads(req("-P", "-M", "VolumeDelete", name).stdout)["ok"] is True
    for status, error, argv in (
        (3, "objectDoesNotExist", ("-P", "-M", "VolumeDelete", name)),
        (2, "objectExists", ("-P", "--json", json.dumps({"size": MB, "name": "req"}), "VolumeCreate")),
        (1, "cliUnknownQuery", ("VolumeDelete", name)),
    ):
        failed = req(*argv)
        assert (failed.returncode, failed.stdout) == (status, ""), failed.stderr
        assert json.loads(failed.stderr)["error"]["name"] == error


def test_the_configuration_as_lines_and_for_a_shell(host: Host, tmp_path: Path) -> None:
    def said(*argv: str) -> list[str]:
        done = host.run(*argv)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    assert {"SP_OURID=1", "SP_CLUSTER_ID=splab.b", f"SP_AUTH_TOKEN={TOKEN}", "SP_API_HTTP_HOST=127.0.0.1"} <= set(
        said("storpool_confget")
    )
    assert said("storpool_confget") == said("storpool_confshow")
    assert said("storpool_confget", "-s", "other", "SP_OURID") == ["SP_OURID=2"]
    assert said("storpool_confshow", "-s", "nobody", "SP_OURID") == ["SP_OURID=9"]
    assert said("storpool_confshow", "-ne", "SP_OURID") == ["1"]
    assert said("storpool_confshow", "CLUSTER_ID") == ["SP_CLUSTER_ID=splab.b"]
    assert said("storpool_confshow", "-e", "SP_OURID", "SP_CLUSTER_ID") == ["SP_OURID=1", "SP_CLUSTER_ID=splab.b"]
    again = host.run("storpool_confget", "SP_API_HTTP_PORT", SP_API_HTTP_PORT="82")
    assert again.stdout == "SP_API_HTTP_PORT=82\n"
    absent = host.run("storpool_confshow", "-e", "SP_NIX", "SP_OURID")
    assert (absent.returncode, absent.stdout) == (1, "SP_OURID=1\n") and "SP_NIX" in absent.stderr
    assert host.run("storpool_confget", "-x").returncode == 1

    etc = tmp_path / "etc"
    (etc / "storpool.conf.d").mkdir(parents=True)
    (etc / "storpool.conf").write_text("SP_A=first\nSP_B=$(touch broken); it's\nSP$(touch${IFS}broken)=1\nSP-C=1\n")
    (etc / "storpool.conf.d/10.conf").write_text("SP_A=second\n")
    (etc / "storpool.conf.d/20.conf").write_text("SP_A=third\n")
    (etc / "storpool.conf.d/.30.conf").write_text("SP_A=hidden\n")
    (etc / "storpool.conf.d/40.conf.bak").write_text("SP_A=kept\n")
    for command in ("storpool_confget -S", "storpool_confshow -e"):
        script = f'eval "$({host.commands}/{command})"; printf "%s|%s" "$SP_A" "$SP_B"'
        done = host.execute(["sh", "-c", script], {"SPLAB_ETC": str(etc)})
        assert (done.stdout, done.stderr) == ("third|$(touch broken); it's", "")
        assert not (host.away / "broken").exists()


def test_another_s_command_is_never_replaced(tmp_path: Path) -> None:
    install(tmp_path)
    install(tmp_path)
    theirs = tmp_path / "storpool_req"
    ours = (tmp_path / "storpool").read_text()
    theirs.write_text("#!/bin/sh\n")
    (tmp_path / "storpool").unlink()
    with pytest.raises(FileExistsError, match="storpool_req is there and not ours"):
        install(tmp_path)
    assert theirs.read_text() == "#!/bin/sh\n" and not (tmp_path / "storpool").exists()
    theirs.unlink()
    theirs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        install(tmp_path)
    theirs.unlink()
    install(tmp_path)
    assert (tmp_path / "storpool").read_text() == ours
