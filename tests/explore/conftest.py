"""Clouds to begin with, and no logs: what production code says while faults strike would only fill reports."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from harness.explore.beginnings import every


@pytest.fixture(autouse=True, scope="session")
def beginnings() -> None:
    """Made before any test sabotages what makes them."""
    every()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("harness")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
