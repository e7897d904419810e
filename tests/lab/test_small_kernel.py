"""The small guest kernel: what its build is asked for, and when images are made with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import small_kernel
from lab.errors import LabError, MissingPrerequisite


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_every_option_is_asked_for_once_and_is_yes_or_no() -> None:
    lines = [line for line in small_kernel.CONFIG.read_text().splitlines() if "CONFIG_" in line]
    names = [re.sub(r"^(# )?(CONFIG_\w+)(=y| is not set)$", r"\2", line) for line in lines]
    assert len(names) > 50 and all(name.startswith("CONFIG_") and " " not in name for name in names)
    assert sorted(set(names)) == sorted(names)


def test_a_kernel_is_there_once_it_is_whole_and_until_it_is_removed_or_configured_otherwise(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small_kernel.built(cache) is None and not small_kernel.remove(cache)
    directory = small_kernel._directory(cache)
    directory.mkdir(parents=True)
    (directory / "vmlinuz").write_bytes(b"kernel")
    assert small_kernel.built(cache) is None
    (directory / "version").write_text("6.1.0-splab")
    found = small_kernel.built(cache)
    assert found is not None and (found.version, found.modules) == ("6.1.0-splab", ())
    assert small_kernel.build(cache) == found
    other = tmp_path / "other.config"
    other.write_text("CONFIG_64BIT=y\n")
    with monkeypatch.context() as changed:
        changed.setattr(small_kernel, "CONFIG", other)
        assert small_kernel.built(cache) is None
        # Of an earlier configuration, it goes too.
        assert small_kernel.remove(cache)
    assert small_kernel.built(cache) is None


def test_what_a_build_lacks_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_kernel, "TOOLS", ("make", "splab-no-such-tool"))
    with pytest.raises(MissingPrerequisite, match=r"without splab-no-such-tool.*; run `make setup`"):
        small_kernel.build(cache)


def test_a_source_that_has_no_such_option_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source tree whose configuration forgets what it does not know, as the kernel's own does."""
    forget = "sed -i -e /UNKNOWN/d -e 's/# \\(.*MODULES\\) is .*/\\1=y/' .config"
    (tmp_path / "Makefile").write_text(f"tinyconfig:\n\ttouch .config\nolddefconfig:\n\t{forget}\n")
    config = tmp_path / "guest.config"
    config.write_text("CONFIG_64BIT=y\nCONFIG_UNKNOWN=y\n# CONFIG_MODULES is not set\n# CONFIG_SMP is not set\n")
    monkeypatch.setattr(small_kernel, "CONFIG", config)
    with pytest.raises(LabError, match=r"guest.config says: CONFIG_UNKNOWN=y, CONFIG_MODULES$"):
        small_kernel._configure(tmp_path)
