"""Who gets to see the page and who may change anything by it; what it shows without a browser."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests
from served_rig import SECONDS, Served, served
from starlette.requests import Request

from simulator.inprocess import TOKEN
from simulator.page import access


@pytest.fixture
def simulator() -> Iterator[Served]:
    with served() as made:
        yield made


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def page(simulator: Served, path: str = "/", headers: Mapping[str, str] | None = None) -> requests.Response:
    endless = path == "/page/log"
    with requests.get(f"{simulator.url}{path}", headers=dict(headers or {}), timeout=SECONDS, stream=endless) as answer:
        return answer


def post(simulator: Served, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Any:
    where = f"{simulator.url}{path}"
    return requests.post(where, fields, headers=dict(headers or {}), timeout=SECONDS, allow_redirects=False)


def form_token(simulator: Served) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page(simulator).text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("client", "host", "authorization", "status"),
    [
        ("127.0.0.1", "127.0.0.1:81", "", None),
        ("127.0.0.1", "localhost", "", None),
        ("::1", "[::1]:81", "", None),
        ("::ffff:127.0.0.1", "LOCALHOST:9", "", None),
        ("127.0.0.1", "rebound.example:81", "", 403),
        ("127.0.0.1", "127.0.0.1.example", "", 403),
        ("127.0.0.1", "", "", 403),
        ("127.0.0.1", "[::1", "", 403),
        ("127.0.0.1", "rebound.example:81", basic(TOKEN), None),
        ("10.77.0.1", "10.77.0.2:81", "", 401),
        ("10.77.0.1", "127.0.0.1", "", 401),
        ("10.77.0.1", "10.77.0.2:81", basic("wrong"), 401),
        ("10.77.0.1", "10.77.0.2:81", "Basic %%%", 401),
        ("10.77.0.1", "10.77.0.2:81", f"Bearer {TOKEN}", 401),
        ("10.77.0.1", "10.77.0.2:81", basic(TOKEN), None),
        ("fe80::1%eth0", "[fe80::2]", "", 401),
    ],
)
def test_the_page_is_for_this_machine_and_for_who_has_the_token(
    client: str, host: str, authorization: str, status: int | None
) -> None:
    headers = [(b"host", host.encode()), (b"authorization", authorization.encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": (client, 4711)}
    refused = access.refusal(Request(scope), TOKEN)
    assert (None if refused is None else refused.status_code) == status
    assert status != 401 or (refused is not None and "Basic" in refused.headers["www-authenticate"])


@pytest.mark.parametrize("path", ["/", "/page/live.css", "/page/live.js", "/page/log", "/page/faults"])
def test_every_part_of_it_is_guarded(simulator: Served, path: str) -> None:
    strange = {"Host": "rebound.example"}
    assert page(simulator, path, strange).status_code == 403
    assert post(simulator, path, {"form_token": form_token(simulator)}, strange).status_code == 403
    assert page(simulator, path, {"Host": f"localhost:{simulator.port}"}).status_code in (200, 404)


def test_no_other_page_may_embed_it_and_no_script_but_its_own_runs(simulator: Served) -> None:
    headers = page(simulator).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert headers["cache-control"] == "no-store" and headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers
    assert "<script>" not in page(simulator).text and "style=" not in page(simulator).text


FAULT = {"kind": "refuse", "call": "VolumesList", "error": "busy", "object": "", "seconds": "", "count": "2"}


def test_a_form_switches_a_fault_on_and_another_lifts_it(simulator: Served) -> None:
    given = FAULT | {"form_token": form_token(simulator)}
    answer = post(simulator, "/page/faults", given, {"Origin": simulator.url})
    assert (answer.status_code, answer.headers["location"]) == (303, "/#faults")
    assert simulator.faults()[0]["left"] == 2
    assert simulator.ask("GET", "VolumesList").status_code == 409
    # Fields that are for other kinds are not looked at: the form always has them.
    later = given | {"kind": "delay", "seconds": "1.5"}
    assert post(simulator, "/page/faults", later).status_code == 303
    assert simulator.faults()[1]["seconds"] == 1.5 and "error" not in simulator.faults()[1]
    lift = {"form_token": given["form_token"], "id": "1"}
    assert post(simulator, "/page/faults/lift", lift).status_code == 303
    assert [found["id"] for found in simulator.faults()] == [2]
    assert post(simulator, "/page/faults/lift", lift | {"id": "all"}).status_code == 303
    assert simulator.faults() == []
    assert post(simulator, "/page/faults/lift", lift).status_code == 400


def test_a_form_of_another_page_changes_nothing(simulator: Served) -> None:
    good = form_token(simulator)
    for fields, headers in (
        (FAULT, {}),
        (FAULT | {"form_token": ""}, {}),
        (FAULT | {"form_token": good[:-1]}, {}),
        (FAULT | {"form_token": TOKEN}, {}),
        (FAULT | {"form_token": good}, {"Origin": "http://rebound.example"}),
        (FAULT | {"form_token": good}, {"Origin": "null"}),
    ):
        assert post(simulator, "/page/faults", fields, headers).status_code == 403, (fields, headers)
        assert post(simulator, "/page/faults/lift", fields | {"id": "all"}, headers).status_code == 403
    assert post(simulator, "/page/faults", {"form_token": good, "x": "y" * 9000}).status_code == 400
    assert (
        post(simulator, "/page/faults", {"form_token": good} | dict.fromkeys(map(str, range(30)), "1")).status_code
        == 400
    )
    assert simulator.faults() == []
    with served() as other:
        assert post(simulator, "/page/faults", FAULT | {"form_token": form_token(other)}).status_code == 403


def test_a_form_that_cannot_be_meant_is_shown_again_with_what_is_wrong(simulator: Served) -> None:
    given = FAULT | {"form_token": form_token(simulator), "count": "often", "object": '"><script>'}
    answer = post(simulator, "/page/faults", given)
    assert answer.status_code == 400 and 'role="alert"' in answer.text and "count" in answer.text
    assert 'value="often"' in answer.text and "<script>" not in answer.text


def test_without_the_control_api_nothing_can_be_switched_on() -> None:
    with served(control=False) as simulator:
        assert "--control" in page(simulator).text and "<form" not in page(simulator).text
        assert post(simulator, "/page/faults", FAULT).status_code == 403
        assert page(simulator, "/page/log?after=x").status_code == 400


def test_what_clients_chose_is_shown_as_text(simulator: Served) -> None:
    simulator.ask("GET", "Volume/<img src=x onerror=alert(1)>")
    simulator.ask("POST", "VolumeCreate", {"name": "<b>"})
    text = page(simulator).text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text and "<img" not in text and "<b>" not in text


def test_the_page_itself_is_no_call_and_other_paths_still_are(simulator: Served) -> None:
    assert page(simulator).status_code == 200 and page(simulator, "/page/none").status_code == 404
    assert page(simulator, "/favicon.ico").json()["error"]["name"] == "accessDenied"
    assert [line["path"] for line in simulator.log()] == ["/favicon.ico"]
