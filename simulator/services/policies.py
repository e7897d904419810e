"""VolumeCare's configuration: a text of sections (spec 9.2). `examples/volumecare.conf` is a sample.

    [format]         version=1.0
    [volumecare]     mode, id_tag (a tag by which the history names volumes), vm_tag (instead of the known tags of VMs)
    [policy:NAME]    mode=basic, interval, keep, keep_daily
    [template:NAME]  policy=NAME, for the volumes of one StorPool template
    [template:*]     policy=NAME, for all others; `no`, its default, is none

The parameters of policies are ours. Intervals and days are those of the Unix clock: `interval=1h` is one snapshot in
each hour of the day, and days are UTC. Kept are the snapshots of the last `keep` intervals, the one under way included,
and of the last `keep_daily` days the newest of each day.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.services.kept import ConfigError

NO = "no"
"""The policy that is none."""
VM_TAGS = ("cvm", "nvm", "pve-vm", "osvm")
"""By which CloudStack, OpenNebula, Proxmox and OpenStack name the VM of a volume."""
VOLUME = "volume"
"""In place of a VM's tag, for volumes that are of no VM."""
DAY = 86400
LONGEST_LINE = 500
LONGEST_TEXT = 1 << 16
"""Characters, as of a line: the parser's time grows with the square of a line."""

_LOCAL = ("normal", "primary")
_REMOTE = ("backup", "multi_backup", "primary_backup")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
_NAME = re.compile(r"[A-Za-z0-9_\-.:]{1,199}")


@dataclass(frozen=True, slots=True)
class Policy:
    interval: int
    """Seconds."""
    keep: int
    """Intervals."""
    keep_daily: int
    """Days."""


@dataclass(frozen=True, slots=True)
class Config:
    id_tag: str
    """Empty: the history names volumes as StorPool does."""
    vm_tags: tuple[str, ...]
    policies: Mapping[str, Policy]
    templates: Mapping[str, str]
    """Policy by name of the template."""
    default: str
    """Policy of every other template, and of volumes without one."""


def parse(text: str) -> Config:
    """Raises `ConfigError`."""
    sections = _sections(text)
    version = _take(sections, "format", ("version",)).get("version")
    if version != "1.0":
        raise ConfigError(f"[format]: version is {version or 'missing'}; only 1.0 is known")
    service = _take(sections, "volumecare", ("mode", "id_tag", "vm_tag"))
    _check_mode(service.get("mode", "normal"))
    policies: dict[str, Policy] = {}
    templates: dict[str, str] = {}
    for section in sections.sections():
        kind, _, name = (part.strip() for part in section.partition(":"))
        if (kind == "policy" and name in policies) or (kind == "template" and name in templates):
            raise ConfigError(f"[{section}] is there twice")
        if kind == "policy" and name != NO and _NAME.fullmatch(name):
            policies[name] = _policy(section, _take(sections, section, ("mode", "interval", "keep", "keep_daily")))
        elif kind == "template" and (name == "*" or _NAME.fullmatch(name)):
            templates[name] = _take(sections, section, ("policy",)).get("policy", NO)
        elif section not in ("format", "volumecare"):
            raise ConfigError(f"[{section}] is no section that VolumeCare knows")
    for template, policy in templates.items():
        if policy != NO and policy not in policies:
            raise ConfigError(f"[template:{template}]: there is no section [policy:{policy}]")
    default = templates.pop("*", None)
    if default is None:
        raise ConfigError("the section [template:*] is missing")
    return Config(
        _tag(service, "id_tag"),
        (_tag(service, "vm_tag"),) if "vm_tag" in service else VM_TAGS,
        policies,
        templates,
        default,
    )


def _sections(text: str) -> configparser.RawConfigParser:
    if len(text) > LONGEST_TEXT or max(map(len, text.split("\n"))) > LONGEST_LINE:
        raise ConfigError(f"more than {LONGEST_TEXT} characters, or a line of more than {LONGEST_LINE}")
    sections = configparser.RawConfigParser(delimiters=("=",), default_section="", empty_lines_in_values=False)
    try:
        sections.read_string(text, "configuration")
    except configparser.Error as error:
        raise ConfigError(f"no text of sections: {error}") from error
    return sections


def _take(sections: configparser.RawConfigParser, section: str, known: tuple[str, ...]) -> dict[str, str]:
    """What the section sets; empty when it is missing."""
    found = dict(sections.items(section)) if sections.has_section(section) else {}
    for key, value in found.items():
        if key not in known:
            raise ConfigError(f"[{section}]: '{key}' is not known; there are {', '.join(known)}")
        if not value:
            raise ConfigError(f"[{section}]: '{key}' has no value")
    return found


def _check_mode(mode: str) -> None:
    """Both modes of one location take and expire its snapshots."""
    if mode in _REMOTE:
        raise ConfigError(f"[volumecare]: mode {mode} is not implemented: it backs up to another location")
    if mode not in _LOCAL:
        raise ConfigError(f"[volumecare]: mode '{mode}' is none of {', '.join(_LOCAL + _REMOTE)}")


def _tag(service: Mapping[str, str], key: str) -> str:
    tag = service.get(key, "")
    if tag and (not _NAME.fullmatch(tag) or tag == VOLUME):
        raise ConfigError(f"[volumecare]: {key} '{tag}' cannot be the name of a tag of VMs or volumes")
    return tag


def _policy(section: str, found: Mapping[str, str]) -> Policy:
    mode = found.get("mode", "basic")
    if mode != "basic":
        raise ConfigError(f"[{section}]: mode '{mode}' is not implemented; there is basic")
    for key in ("interval", "keep"):
        if key not in found:
            raise ConfigError(f"[{section}]: '{key}' is missing")
    interval = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", found["interval"])
    seconds = int(interval[1]) * _UNITS[interval[2]] if interval else 0
    if not 60 <= seconds <= 366 * DAY:
        raise ConfigError(f"[{section}]: interval '{found['interval']}' is no time from 1m to 366d")
    return Policy(
        seconds,
        _count(section, "keep", found["keep"], 1),
        _count(section, "keep_daily", found.get("keep_daily", "0"), 0),
    )


def _count(section: str, key: str, text: str, least: int) -> int:
    count = int(text) if re.fullmatch(r"[0-9]{1,4}", text) else -1
    if not least <= count <= 1000:
        raise ConfigError(f"[{section}]: {key} '{text}' is no number from {least} to 1000")
    return count


def kept(policy: Policy, times: list[int], now: float) -> set[int]:
    """Of these times of snapshots, all Unix seconds, those that the policy wants."""
    wanted: set[int] = set()
    for period, count in ((policy.interval, policy.keep), (DAY, policy.keep_daily)):
        newest: dict[int, int] = {}
        for time in sorted(times):
            newest[time // period] = time
        wanted.update(time for slot, time in newest.items() if slot > int(now) // period - count)
    return wanted


def due(policy: Policy, times: list[int], now: float) -> bool:
    """Whether the interval under way has no snapshot yet."""
    slot = int(now) // policy.interval
    return all(time // policy.interval != slot for time in times)
