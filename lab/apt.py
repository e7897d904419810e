"""Packages of the distribution that are downloaded and unpacked, never installed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.errors import MissingPrerequisite
from lab.shell import run


def depends(package: str, prefix: str) -> list[str]:
    """Packages with this prefix that `package` depends on; none where apt does not know it."""
    text = run(["apt-cache", "depends", package], check=False).text
    return re.findall(rf"Depends: ({re.escape(prefix)}[\w.+-]+)", text)


def download(find: Callable[[], Sequence[str]], of: Sequence[str], directory: Path) -> tuple[Path, ...]:
    """The .deb files of the packages that `find` names, in `directory`; apt's lists are fetched when it names none.

    Raises `MissingPrerequisite` when it names none then, either; `of` are the packages that it looked for.
    """
    names = find()
    if not names:
        run(["apt-get", "-q", "update"], timeout=300, check=False)
        names = find()
    if not names:
        raise MissingPrerequisite(f"apt knows none of {', '.join(of)}; run `apt-get update`")
    run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *names], cwd=directory, timeout=600)
    return tuple(sorted(directory.glob("*.deb")))
