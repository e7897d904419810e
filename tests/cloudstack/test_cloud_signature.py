"""Signatures in every variant that real clients send."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cloudstack.api.signature import expired, is_signed, sign

SECRET = "the-secret"


def by_hand(text: str) -> str:
    return base64.b64encode(hmac.new(SECRET.encode(), text.lower().encode(), hashlib.sha1).digest()).decode()


QUERY = [("command", "createTags"), ("Zone", "a b*"), ("apiKey", "K~1"), ("tags[0].key", "x/[y]")]


@pytest.mark.parametrize(
    "text",
    [
        "Zone=a%20b*&apiKey=K~1&command=createTags&tags[0].key=x%2F%5By%5D",
        "Zone=a%20b*&apiKey=K%7E1&command=createTags&tags[0].key=x%2F%5By%5D",
        "apiKey=K~1&command=createTags&tags[0].key=x%2F%5By%5D&Zone=a%20b*",
        "apiKey=K~1&command=createTags&tags[0].key=x%2F[y]&Zone=a%20b*",
        "apiKey=K~1&command=createTags&tags%5B0%5D.key=x%2F%5By%5D&Zone=a%20b*",
    ],
)
def test_names_sorted_either_way_and_brackets_escaped_or_not_are_accepted(text: str) -> None:
    assert is_signed(QUERY, by_hand(text), SECRET)


def test_another_order_secret_or_value_is_refused() -> None:
    assert not is_signed(QUERY, by_hand("command=createTags&Zone=a%20b*&apiKey=K~1&tags[0].key=x%2F%5By%5D"), SECRET)
    assert not is_signed(QUERY, sign(QUERY, SECRET), "another")
    assert not is_signed([*QUERY[:-1], ("tags[0].key", "z")], sign(QUERY, SECRET), SECRET)
    assert not is_signed(QUERY, "", SECRET)
    assert not is_signed(QUERY, "é", SECRET)


names = st.text("abcXYZ[]0.", min_size=1, max_size=8).filter(lambda name: name.lower() != "signature")


@given(st.dictionaries(names, st.text(max_size=20), max_size=6))
def test_what_is_signed_is_verified_and_every_changed_value_is_not(values: dict[str, str]) -> None:
    query = list(values.items())
    signature = sign(query, SECRET)
    assert is_signed([*query, ("signature", signature)], signature, SECRET)
    for index, (name, value) in enumerate(query):
        changed = [*query[:index], (name, value + "x"), *query[index + 1 :]]
        assert not is_signed(changed, signature, SECRET)
        assert quote(value, safe="") != quote(value + "x", safe="")


def test_version_3_needs_an_expires_that_has_not_passed_and_version_1_none() -> None:
    def query(expires: str) -> list[tuple[str, str]]:
        return [("signatureVersion", "3"), ("expires", expires)]

    assert expired(query("2023-11-14T22:13:21+0000"), 1_700_000_000.0) is None
    assert expired(query("2023-11-14T22:13:19+0000"), 1_700_000_000.0) == "the request's expires has passed"
    assert "must look like" in (expired(query("tomorrow"), 0.0) or "")
    assert "must look like" in (expired([("signatureversion", "3")], 0.0) or "")
    assert expired([("command", "listZones")], 1_700_000_000.0) is None
