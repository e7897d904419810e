"""What can be true after what clients were told: registers, releases, and messages that may arrive twice."""

from __future__ import annotations

from harness.explore.model import BACKED_UP, FREE, FROM, RUNNING, STOPPED, Model, Register, Told


def test_a_request_that_succeeded_is_all_that_can_be_true() -> None:
    model, register = Model(), Register(STOPPED)
    write = model.begin(register, STOPPED, RUNNING)
    assert register.possible() == {STOPPED, RUNNING}
    model.done("startVirtualMachine", write)
    assert register.possible() == {RUNNING}


def test_a_request_that_failed_is_done_or_undone_and_may_take_effect_later() -> None:
    model, register = Model(), Register("vm0")
    model.begin(register, FREE)
    assert register.possible() == {"vm0", FREE}
    after = model.begin(register, "vm1")
    model.done("attachVolume", after)
    assert register.possible() == {"vm1", FREE}


def test_of_two_that_overlap_either_can_be_last_and_a_later_one_settles_it() -> None:
    model, register = Model(), Register()
    first, second = model.begin(register, "vm0"), model.begin(register, "vm1")
    model.done("attachVolume", first)
    model.done("attachVolume", second)
    assert register.possible() == {"vm0", "vm1"}
    third = model.begin(register, FREE)
    model.done("detachVolume", third)
    assert register.possible() == {FREE}


def test_a_request_that_was_turned_away_wrote_nothing_unless_a_copy_of_it_may_arrive() -> None:
    model, register = Model(), Register(RUNNING)
    model.refused("stopVirtualMachine", register, model.begin(register, STOPPED))
    assert register.possible() == {RUNNING}
    model.disturbed.add("stopVirtualMachine")
    model.refused("stopVirtualMachine", register, model.begin(register, STOPPED))
    assert register.possible() == {RUNNING, STOPPED}


def test_a_copy_may_take_effect_after_a_later_success() -> None:
    model, register = Model(), Register(RUNNING)
    model.disturbed.add("stopVirtualMachine")
    model.done("stopVirtualMachine", model.begin(register, STOPPED))
    model.done("startVirtualMachine", model.begin(register, RUNNING))
    assert register.possible() == {RUNNING, STOPPED}


def test_a_crash_stops_a_vm_until_it_is_started_again() -> None:
    model, register = Model(), Register(RUNNING)
    model.crashed(register)
    assert register.possible() == {RUNNING, STOPPED}
    model.done("startVirtualMachine", model.begin(register, RUNNING))
    assert register.possible() == {RUNNING}


def test_a_vm_that_is_destroyed_may_let_go_the_volumes_it_has_and_no_others() -> None:
    model = Model()
    vm = Told("vm0")
    has, other = Told("volume0", Register("vm0")), Told("volume1", Register("vm1"))
    model.volumes = {0: has, 1: other}
    release = model.release(vm)
    assert has.register.possible() == {"vm0", FREE}
    assert other.register.possible() == {"vm1"}
    model.keep(vm, release)
    assert has.register.possible() == {"vm0"}


def test_a_late_copy_excuses_the_volumes_in_use_on_its_host_only() -> None:
    model = Model()
    model.vms = {0: Told("vm0")}
    used, free = Told("volume0", Register("vm0")), Told("volume1", Register(FREE))
    model.volumes = {0: used, 1: free}
    model.reassigned(["kvm1"])
    assert (used.late_on, free.late_on) == ({"kvm1"}, set())


def taken(model: Model, volume: Told) -> Told:
    """A snapshot of the volume, whose taking has begun."""
    snapshot = model.snapshots[len(model.snapshots)] = Told(f"snapshot{len(model.snapshots)}", origin=volume)
    snapshot.taken = model.begin(snapshot.register, BACKED_UP)
    return snapshot


def written(model: Model, volume: Told, text: str) -> None:
    model.done("write", model.begin(volume.fact("mark 0"), text))


def test_a_snapshot_holds_what_its_volume_had_at_some_time_while_it_was_taken() -> None:
    model, volume = Model(), Told("volume0")
    written(model, volume, "long before")
    written(model, volume, "before")
    snapshot = taken(model, volume)
    written(model, volume, "meanwhile")
    assert snapshot.taken is not None
    model.done("createSnapshot", snapshot.taken)
    written(model, volume, "after")
    assert model.held(snapshot, "mark 0") == {"before", "meanwhile"}
    assert model.held(snapshot, "mark 1") == {""}
    assert model.values(volume, "mark 0") == {"after"}


def test_a_snapshot_that_failed_may_still_be_taken() -> None:
    model, volume = Model(), Told("volume0")
    written(model, volume, "before")
    snapshot = taken(model, volume)
    written(model, volume, "after")
    assert model.held(snapshot, "mark 0") == {"before", "after"}


def test_a_reverted_volume_and_one_made_of_a_snapshot_have_what_the_snapshot_holds() -> None:
    model, volume = Model(), Told("volume0")
    written(model, volume, "then")
    snapshot = taken(model, volume)
    assert snapshot.taken is not None
    model.done("createSnapshot", snapshot.taken)
    written(model, volume, "now")
    clone = Told("volume1", origin=snapshot)
    assert model.values(clone, "mark 0") == {"then"}
    revert = model.begin(volume.fact("mark 0"), FROM + snapshot.name)
    assert model.values(volume, "mark 0") == {"then", "now"}
    model.done("revertSnapshot", revert)
    assert model.values(volume, "mark 0") == {"then"}
    written(model, clone, "in the clone")
    assert (model.values(clone, "mark 0"), model.held(snapshot, "mark 0")) == ({"in the clone"}, {"then"})


def test_a_snapshot_of_what_may_have_been_reverted_to_itself_ends() -> None:
    model, volume = Model(), Told("volume0")
    written(model, volume, "then")
    snapshot = taken(model, volume)
    model.begin(volume.fact("mark 0"), FROM + snapshot.name)
    assert model.held(snapshot, "mark 0") == {"then"}
