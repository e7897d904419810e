"""How full disks and placement groups are, by what the blocks really hold (spec storpool-api 6.3, 6.4)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain

from simulator.cluster import disksets, policy
from simulator.cluster.plan import Call
from simulator.cluster.records import Object, Template


@dataclass(frozen=True, slots=True)
class Fill:
    """Bytes."""

    capacity: int
    free: int


def own(call: Call, found: Object) -> int:
    """Bytes that are not the parent's, as well as they can be told: overwritten ones count as the parent's."""
    return max(0, call.stored.get(found.id, 0) - call.stored.get(found.parent, 0))


def disk_size(call: Call) -> int:
    """Of every disk the same: the pool's bytes, as many copies as the default replication says, spread evenly."""
    return call.capacity[0] * call.settings.default_replication // max(1, len(call.state.disks))


def used_by_disk(call: Call) -> dict[int, int]:
    """Bytes of the copies that each disk holds; those of one object are spread as its objects are."""
    used = dict.fromkeys(call.state.disks, 0)
    for found in call.state.objects.values():
        for disk, amount in on_disks(call, found).items():
            used[disk] += amount
    return used


def on_disks(call: Call, found: Object) -> Counter[int]:
    """Bytes of one object's copies, by disk."""
    amount = own(call, found)
    if not amount:
        return Counter()
    placed = disksets.placed(call, found)
    return Counter({disk: times * amount // len(placed) for disk, times in Counter(chain(*placed)).items()})


def of_group(call: Call, group: int, used: dict[int, int]) -> Fill:
    """Of all usable disks of a placement group together, copies not divided out."""
    size = disk_size(call)
    disks = [disk for disk in call.state.groups[group].disks if not call.state.disks[disk].ejected]
    return Fill(size * len(disks), sum(max(0, size - used[disk]) for disk in disks))


def of_place(call: Call, template: Template, group: int, used: dict[int, int]) -> Fill:
    """What volumes of the template could store if this group were all that limits them."""
    copies = max(1, Counter(_places(call, template))[group])
    fill = of_group(call, group, used)
    return Fill(fill.capacity // copies, min(call.capacity[1], fill.free // copies))


def of_template(call: Call, template: Template, used: dict[int, int]) -> Fill:
    """What volumes of the template can store: the group that is full first limits it, and so does the pool."""
    fills = [of_place(call, template, group, used) for group in dict.fromkeys(_places(call, template))]
    return Fill(min(fill.capacity for fill in fills), min(fill.free for fill in fills))


def _places(call: Call, template: Template) -> list[int]:
    copies = template.replication if template.replication > 0 else call.settings.default_replication
    return policy.places(template.place_head, template.place_all, template.place_tail, copies)
