"""Adding a pool, and making it usable on hosts."""

from __future__ import annotations

import msgspec
import pytest
from driver_rig import POOL, TOKEN, Fault, Rig, volume

from harness.spi.commands import Answer, AnyCommand, StorPoolModifyStoragePoolCommand
from harness.spi.driver import PoolRequest
from harness.spi.errors import Error, InvalidParameter, Unavailable, Unknown
from harness.spi.objects import Host
from harness.storpool import Request

HOST = Host(id=4, uuid="h", name="kvm-1", cluster_id=2)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def empty(rig: Rig) -> Rig:
    """Without the pool that other tests work on."""
    rig.records.details.clear()
    return rig


def request(url: str = f"storpool://{TOKEN}@sp:81/hdd", **more: object) -> PoolRequest:
    base = PoolRequest(name="fast", url=url, scope="ZONE", capacity_bytes=1 << 40)
    return msgspec.structs.replace(base, **more)


@pytest.mark.parametrize(
    "url", [f"storpool://{TOKEN}@sp:81/hdd", f"SP_API_HTTP=sp:81;SP_AUTH_TOKEN={TOKEN};SP_TEMPLATE=hdd"]
)
def test_a_pool_is_described_from_either_form_of_url(empty: Rig, url: str) -> None:
    rig = empty
    made = rig.provider.life_cycle.initialize(request(url))
    assert made.details == {"SP_API_HTTP_HOST": "sp:81", "SP_AUTH_TOKEN": TOKEN, "SP_TEMPLATE": "hdd"}
    assert (made.tags, made.path) == (("fast",), "/dev/storpool")
    assert made.uuid.startswith("hdd;")
    assert rig.provider.life_cycle.initialize(request(url, tags=("a", "b"))).tags == ("a", "b")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (request(scope="CLUSTER"), "zone-wide"),
        (request(capacity_bytes=None), "capacitybytes"),
        (request(capacity_bytes=-1), "capacitybytes"),
        (request(f"storpool://{TOKEN}@sp:81/none"), "no template none"),
        (request("storpool://wr0ngsecret@sp:81/hdd"), "SP_AUTH_TOKEN"),
        (request("nfs://sp/hdd"), "expected"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_with_the_reason(empty: Rig, bad: PoolRequest, says: str) -> None:
    rig = empty
    with pytest.raises(InvalidParameter, match=says) as caught:
        rig.provider.life_cycle.initialize(bad)
    assert TOKEN not in str(caught.value) and "wr0ngsecret" not in str(caught.value)
    assert rig.volumes() == []


def test_a_template_without_placement_or_replication_is_refused(rig: Rig) -> None:
    body = msgspec.json.encode({"name": "bare"})
    assert rig.cluster.serve(Request("POST", "VolumeTemplateCreate", body, 1)).status == 200
    with pytest.raises(InvalidParameter, match="replication"):
        rig.provider.life_cycle.initialize(request(f"storpool://{TOKEN}@sp:81/bare"))


def test_a_template_that_serves_another_pool_is_refused_whichever_address_it_is_given_by(rig: Rig) -> None:
    for hosts in ("other:81,sp:81", "10.9.9.9:81"):
        with pytest.raises(InvalidParameter, match="serves pool 1 already"):
            rig.provider.life_cycle.initialize(request(f"storpool://{TOKEN}@{hosts}/hdd"))
    assert rig.provider.life_cycle.initialize(request(f"storpool://{TOKEN}@sp:81/ssd")).details["SP_TEMPLATE"] == "ssd"


def test_neither_request_nor_description_of_a_pool_shows_the_token(empty: Rig) -> None:
    wanted = request()
    made = empty.provider.life_cycle.initialize(wanted)
    assert TOKEN in wanted.url and TOKEN in made.details.values()
    assert TOKEN not in f"{wanted!r} {wanted} {made!r} {made}"


def test_a_pool_whose_details_are_damaged_keeps_no_other_from_being_added(rig: Rig) -> None:
    del rig.records.details[1]["SP_AUTH_TOKEN"]
    assert rig.provider.life_cycle.initialize(request()).details["SP_TEMPLATE"] == "hdd"


def test_an_api_that_is_not_reached_or_not_storpools_is_unavailable(empty: Rig) -> None:
    rig = empty
    with pytest.raises(Unavailable, match="down:81 cannot be reached"):
        rig.provider.life_cycle.initialize(request(f"storpool://{TOKEN}@down:81/hdd"))
    rig.cluster.faults = dict.fromkeys(range(9), Fault.ANSWER_CUT)
    with pytest.raises(Unavailable, match="is it a StorPool API"):
        rig.provider.life_cycle.initialize(request())


def test_hosts_of_a_cluster_share_one_check_volume(rig: Rig) -> None:
    first = rig.provider.host_listener.host_connected(HOST, POOL)
    rig.provider.host_listener.host_connected(msgspec.structs.replace(HOST, id=5), POOL)

    (path,) = rig.volumes()
    assert first.storpool_client_id == 7
    assert rig.records.details[1]["SP_VOLUME_ON_CLUSTER-2"] == path
    assert rig.tags(path) == {"cs": "check-volume-is-on-host"}
    assert [v.size for v in rig.look.volumes_list()] == [512]
    assert {c.volume_path for c in rig.agent.commands if isinstance(c, StorPoolModifyStoragePoolCommand)} == {path}

    rig.provider.host_listener.host_connected(msgspec.structs.replace(HOST, cluster_id=3), POOL)
    assert len(rig.volumes()) == 2


def test_a_check_volume_that_storpool_lost_is_made_again(rig: Rig) -> None:
    rig.provider.host_listener.host_connected(HOST, POOL)
    rig.look.volume_delete("~" + rig.volumes()[0].rpartition("/")[2])
    rig.provider.host_listener.host_connected(HOST, POOL)
    assert rig.volumes() == [rig.records.details[1]["SP_VOLUME_ON_CLUSTER-2"]]


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.REQUEST_LOST, Fault.ANSWER_LOST])
def test_a_host_that_does_not_answer_takes_nothing_from_the_others(rig: Rig, fault: Fault) -> None:
    rig.provider.host_listener.host_connected(HOST, POOL)
    kept = rig.volumes()
    rig.agent.faults = [fault]
    with pytest.raises(Unavailable if fault is Fault.NOT_SENT else Unknown):
        rig.provider.host_listener.host_connected(msgspec.structs.replace(HOST, id=5), POOL)
    assert rig.volumes() == kept
    assert len(rig.records.details[1]) == 4


def test_a_host_that_cannot_use_the_pool_says_why(rig: Rig) -> None:
    def refuse(command: AnyCommand) -> Answer:
        del command
        return Answer(result=False, details="objectDoesNotExist")

    rig.agent.answer = refuse
    with pytest.raises(Error, match="kvm-1 cannot use StorPool pool pool: objectDoesNotExist"):
        rig.provider.host_listener.host_connected(HOST, POOL)
    assert len(rig.volumes()) == 1


@pytest.mark.parametrize("fault", list(Fault))
def test_any_fault_while_making_it_leaves_one_check_volume_or_none(rig: Rig, fault: Fault) -> None:
    rig.cluster.faults = {0: fault}
    try:
        rig.provider.host_listener.host_connected(HOST, POOL)
    except Error:
        assert rig.records.open_operations() or not rig.volumes()
    except BaseException as death:
        assert type(death).__name__ == "Dead"
        rig.restart()
    rig.settle()
    recorded = {v for k, v in rig.records.details[1].items() if k.startswith("SP_VOLUME_ON_CLUSTER")}
    assert set(rig.volumes()) == recorded
    assert rig.records.open_operations() == []


def test_the_alternative_endpoint_replaces_the_pools_own(rig: Rig) -> None:
    rig.records.settings["sp.enable.alternative.endpoint"] = "true"
    with pytest.raises(InvalidParameter, match=r"sp\.alternative\.endpoint is empty"):
        rig.driver.create(volume())
    rig.records.settings["sp.alternative.endpoint"] = f"SP_API_HTTP=dr:81;SP_AUTH_TOKEN={TOKEN};SP_TEMPLATE=ssd"
    rig.driver.create(volume())
    assert [v.template_name for v in rig.look.volumes_list()] == ["ssd"]
