"""What recovery did, in the words of the processes' own logs."""

from __future__ import annotations

from collections.abc import Sequence

LINES = 12
LENGTH = 300
_ROOMS = frozenset({"cloudstack", "driver", "recovery", "hosts", "vm", "volume", "attachment", "template", "agent"})
_ANSWERED = ": 200 in "
_UNNAMING = '{"rename":""}'
_LOOK_UPS = ("GET MultiCluster/Volume/cs-", "GET MultiCluster/Snapshot/cs-")
"""Whether a lost create has arrived; what came of it the driver says itself."""
_AS_EVER = ("open until it is surely recorded", "serving commands on")
"""What is said in every run, also where nobody was killed."""


def recovery_lines(entries: Sequence[tuple[float, str, str]]) -> list[str]:
    """The lines that tell of it: what driver, stand-in and agents decided, and calls that did not succeed.

    `entries` are (time, source, text); each text comes once, at most `LINES` of them.
    """
    told = (f"{source}: {text}"[:LENGTH] for _, source, text in entries if _tells(source, text))
    found = list(dict.fromkeys(told))
    return found if len(found) <= LINES else [*found[: LINES - 1], f"and {len(found) - LINES + 1} lines more"]


def _tells(source: str, text: str) -> bool:
    words = source.split()
    room = words[1] if len(words) > 1 else ""
    if room == "StorPool":
        return not (_ANSWERED in text or _UNNAMING in text or text.startswith(_LOOK_UPS))
    return room in _ROOMS and not any(words in text for words in _AS_EVER)
