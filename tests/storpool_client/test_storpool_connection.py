"""Pool URLs and storpool.conf."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.spi.errors import InvalidParameter
from harness.storpool import (
    Connection,
    Secret,
    from_details,
    is_configuration_file,
    parse_configuration,
    parse_url,
)

HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda a: f"[{a}]"),
    st.from_regex(r"[a-z][a-z0-9\-]{0,20}[a-z0-9]", fullmatch=True),
)
ENDPOINTS = st.lists(st.tuples(HOSTS, st.integers(1, 65535)).map(lambda e: f"{e[0]}:{e[1]}"), min_size=1, max_size=3)
TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
TEMPLATES = st.from_regex(r"[A-Za-z0-9_\-]{1,199}", fullmatch=True)


@given(ENDPOINTS, TOKENS, TEMPLATES)
def test_the_uri_form_gives_back_what_went_in(endpoints: list[str], token: str, template: str) -> None:
    parsed = parse_url(f"storpool://{token}@{','.join(endpoints)}/{template}")
    assert parsed == Connection(tuple(endpoints), Secret(token), template)
    assert from_details(parsed.details()) == parsed


@given(ENDPOINTS, TOKENS.filter(lambda t: ";" not in t), TEMPLATES, st.permutations([0, 1, 2]))
def test_the_pairs_form_gives_back_what_went_in(
    endpoints: list[str], token: str, template: str, order: list[int]
) -> None:
    pairs = [f"SP_API_HTTP={','.join(endpoints)}", f"SP_AUTH_TOKEN={token}", f"SP_TEMPLATE={template}"]
    assert parse_url(";".join(pairs[i] for i in order)) == Connection(tuple(endpoints), Secret(token), template)


def test_a_token_with_equals_signs_works_in_both_forms() -> None:
    assert parse_url("storpool://a=b==@h:81/t").token.reveal() == "a=b=="
    assert parse_url("SP_API_HTTP=h:81;SP_AUTH_TOKEN=a=b==;SP_TEMPLATE=t").token.reveal() == "a=b=="


def test_a_port_that_is_left_out_is_storpools_own() -> None:
    assert parse_url("storpool://t0ken@h/t").endpoints == ("h:81",)
    assert parse_url("storpool://t0ken@[::1]/t").endpoints == ("[::1]:81",)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hdd",
        "nfs://s3cret@h/t",
        "storpool://h:81/t",
        "storpool://s3cret@h:81",
        "storpool://s3cret@/t",
        "storpool://@h:81/t",
        "storpool://s3cret@h:0/t",
        "storpool://s3cret@h:65536/t",
        "storpool://s3cret@h:x/t",
        "storpool://s3cret@h:81,/t",
        "storpool://s3cret@h h:81/t",
        "storpool://s3cret@::1/t",
        "storpool://s3cret\n@h:81/t",
        "storpool://s3cret\xe9@h:81/t",
        "storpool://s3cret@h:81/t t",
        "SP_API_HTTP=h:81;SP_AUTH_TOKEN=s3cret",
        "SP_API_HTTP=h:81;SP_AUTH_TOKEN=;SP_TEMPLATE=t",
        "SP_API_HTTP=h:81;SP_AUTH_TOKEN=s3cret;SP_AUTH_TOKEN=s3cret;SP_TEMPLATE=t",
        "SP_API_HTTP=h:81;SP_AUTH_TOKEN=s3cret;SP_TEMPLATE=t;SP_OTHER=s3cret",
        "SP_API_HTTP=h:81;SP_AUTH_TOKEN=s3cret;s3cret;SP_TEMPLATE=t",
    ],
)
def test_a_malformed_url_is_refused_without_quoting_the_token(url: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_url(url)
    assert "s3cret" not in str(caught.value)


@given(st.text(max_size=80))
def test_no_url_does_anything_but_parse_or_be_refused(url: str) -> None:
    try:
        assert parse_url(url).endpoints
    except InvalidParameter:
        assert True is not False


def test_details_that_are_missing_are_named() -> None:
    with pytest.raises(InvalidParameter, match="SP_AUTH_TOKEN, SP_TEMPLATE"):
        from_details({"SP_API_HTTP_HOST": "h:81"})


MAIN = """# of the cluster
SP_API_HTTP_HOST=10.0.0.1,10.0.0.2
SP_AUTH_TOKEN = abc=def
SP_CLUSTER_ID=D.n
SP_OURID=1
[kvm-1]
SP_OURID=11
[kvm-2]
SP_OURID=12
SP_AUTH_TOKEN=other
"""


def test_a_hosts_section_wins_and_another_hosts_does_not_count() -> None:
    ours = parse_configuration([MAIN], "kvm-1")
    assert (ours.client_id, ours.cluster_id, ours.token.reveal()) == (11, "d.n", "abc=def")
    assert ours.endpoints == ("10.0.0.1:81", "10.0.0.2:81")
    assert parse_configuration([MAIN], "kvm-9").client_id == 1


def test_later_files_win_and_so_does_a_section_over_a_later_global_setting() -> None:
    assert parse_configuration([MAIN, "SP_CLUSTER_ID=x.y\nSP_OURID=2"], "kvm-1").cluster_id == "x.y"
    assert parse_configuration([MAIN, "SP_OURID=2"], "kvm-1").client_id == 11
    assert parse_configuration([MAIN, "SP_OURID=2"], "kvm-9").client_id == 2


def test_the_environment_overrides_address_and_token_only() -> None:
    environment = {"SP_AUTH_TOKEN": "env", "SP_API_HTTP_HOST": "h", "SP_API_HTTP_PORT": "82", "SP_OURID": "99"}
    ours = parse_configuration([MAIN], "kvm-1", environment)
    assert (ours.token.reveal(), ours.endpoints, ours.client_id) == ("env", ("h:82",), 11)


def test_a_configuration_that_cannot_be_used_names_the_setting_and_not_the_secret() -> None:
    bad = parse_configuration(["SP_OURID=0\nSP_AUTH_TOKEN=s3cret s3cret\nSP_API_HTTP_PORT=s3cret"], "h")
    for use in (lambda: bad.client_id, lambda: bad.cluster_id, lambda: bad.token, lambda: bad.endpoints):
        with pytest.raises(InvalidParameter, match="SP_") as caught:
            use()
        assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidParameter, match="file 2, line 1") as caught:
        parse_configuration(["", "s3cret"], "h")
    assert "s3cret" not in str(caught.value)
    assert "abc" not in repr(parse_configuration([MAIN], "kvm-1"))


@pytest.mark.parametrize(("name", "counts"), [("a.conf", True), (".a.conf", False), ("a.conf~", False), ("a", False)])
def test_which_files_of_the_directory_count(name: str, counts: bool) -> None:
    assert is_configuration_file(name) is counts
