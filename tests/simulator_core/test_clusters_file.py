"""The file of several clusters: what is refused, and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.clustersfile import ClustersFileError, read

ALPHA = {"id": "aa.b", "name": "alpha", "location": "sofia", "listen": "127.0.0.1:0", "state": "one"}
GAMMA = {"id": "zz.b", "name": "gamma", "location": "varna", "url": "http://10.0.0.1:81", "token_file": "t"}


def parsed(path: Path, *clusters: dict[str, Any]) -> Any:
    file = path / "clusters.json"
    file.write_text(json.dumps({"clusters": clusters}))
    return read(file)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    here, there = parsed(tmp_path, ALPHA, GAMMA)
    assert (here.state, here.listen, here.url) == (tmp_path / "one", "127.0.0.1:0", None)
    assert (there.token_file, there.url, there.known.location) == (tmp_path / "t", "http://10.0.0.1:81", "varna")


@pytest.mark.parametrize(
    ("clusters", "text"),
    [
        ([], "length >= 1"),
        ([{**ALPHA, "colour": "red"}], "unknown field `colour`"),
        ([{**ALPHA, "id": "aa"}], "LOCATION.SUBCLUSTER"),
        ([{**ALPHA, "name": "list"}], "name"),
        ([{**ALPHA, "url": "http://10.0.0.1:81"}], "either 'listen'"),
        ([GAMMA], "nothing to run"),
        ([ALPHA, {**GAMMA, "url": "https://10.0.0.1"}], "not http://HOST:PORT"),
        ([ALPHA, {**GAMMA, "state": "two"}], "run here"),
        ([ALPHA, {**GAMMA, "id": "aa.b"}], "two clusters have the id 'aa.b'"),
        ([ALPHA, {**GAMMA, "id": "aa.c"}], "location 'aa' has two names"),
        ([ALPHA, {**GAMMA, "location": "sofia"}], "two locations have one name"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(
    tmp_path: Path, clusters: list[dict[str, Any]], text: str
) -> None:
    with pytest.raises(ClustersFileError) as refused:
        parsed(tmp_path, *clusters)
    assert text in str(refused.value)
    assert "clusters.json" in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClustersFileError, match="No such file"):
        read(tmp_path / "nowhere.json")
