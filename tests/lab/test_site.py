"""Labs with two StorPool clusters: what a lab file must say, what the simulator and CloudStack are told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from test_lab_file import copy

from harness.cloudstack import config as cloud_config
from harness.worlds.local.processes import ManagementProcess, Pace, direct
from lab.errors import LabError, LabFileError
from lab.file import Lab, dump, load, storpool_of
from lab.local import machines
from lab.local.layout import KVM_HOSTS, State
from lab.local.site import SITES, named
from simulator import clustersfile


def divided(site: str) -> dict[str, Any]:
    lab = copy()
    lab["site"] = site
    lab["second_storpool"] = {**lab["storpool"], "endpoints": ["192.0.2.3:81"], "cluster_id": "bgu.b", "location": "x"}
    lab["hosts"][1] |= {"second_storpool": True, "client_id": lab["hosts"][0]["client_id"]}
    return lab


def written(tmp_path: Path, lab: dict[str, Any]) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(lab))
    return path


@pytest.mark.parametrize("site", ["clusters", "zones"])
def test_hosts_of_two_clusters_may_have_one_client_id_and_each_is_led_to_its_own(tmp_path: Path, site: str) -> None:
    lab = load(written(tmp_path, divided(site)))
    assert [storpool_of(lab, host).cluster_id for host in lab.hosts] == ["bgu4.b", "bgu.b"]
    assert load(written(tmp_path, yaml.safe_load(dump(lab)))) == lab
    assert direct(lab).storpool["kvm2"] == ("192.0.2.3:81",)


def without(key: str) -> dict[str, Any]:
    lab = divided("zones")
    if key == "hosts":
        lab["hosts"][1]["second_storpool"] = False
        lab["hosts"][1]["client_id"] = 12
    else:
        del lab[key]
    return lab


@pytest.mark.parametrize("key", ["site", "second_storpool", "hosts"])
def test_a_second_cluster_is_said_wholly_or_not_at_all(tmp_path: Path, key: str) -> None:
    with pytest.raises(LabFileError, match="belong together"):
        load(written(tmp_path, without(key)))


@pytest.mark.parametrize("site", ["clusters", "zones"])
def test_the_local_labs_simulator_takes_the_file_that_names_its_clusters(tmp_path: Path, site: str) -> None:
    state = State(tmp_path)
    argv = machines.simulator_argv(state, named(site))
    assert str(state.clusters_file) in argv
    entries = clustersfile.read(state.clusters_file)
    first, second = (entry.known.cluster_id for entry in entries)
    assert [entry.state for entry in entries] == [state.storpool, state.second_storpool]
    assert (first.partition(".")[0] == second.partition(".")[0]) == (site == "clusters")
    assert any(mine in f"{other}.1" for mine, other in ((first, second), (second, first))), "text would tell them apart"


def test_a_site_that_there_is_not_is_refused_and_one_cluster_has_no_file(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="clusters, zones"):
        named("moon")
    assert "--clusters" not in machines.simulator_argv(State(tmp_path))
    assert [SITES["zones"].client_id(host) for host in KVM_HOSTS] == [1, 1]


@pytest.mark.parametrize(("site", "zone"), [("clusters", None), ("zones", "zone2")])
def test_cloudstack_gets_a_cluster_for_the_hosts_of_the_second(tmp_path: Path, site: str, zone: str | None) -> None:
    cloud = told(tmp_path, load(written(tmp_path, divided(site))))
    assert cloud.hosts == ("kvm1",)
    (further,) = cloud.further_clusters
    assert (further.hosts, further.zone) == (("kvm2",), zone)


def test_cloudstack_gets_no_further_cluster_of_an_ordinary_lab(tmp_path: Path) -> None:
    cloud = told(tmp_path, load(written(tmp_path, copy())))
    assert (cloud.hosts, cloud.further_clusters) == (("kvm1", "kvm2"), ())


def told(tmp_path: Path, lab: Lab) -> cloud_config.CloudConfig:
    here = msgspec.structs.replace(
        lab, management=msgspec.structs.replace(lab.management, state_directory=tmp_path / "state")
    )
    told_of = ManagementProcess(here, direct(here), Pace()).configuration()
    return cloud_config.load(msgspec.json.encode(told_of["cloud"]))
