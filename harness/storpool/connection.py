"""Where a pool's StorPool API is: pool URLs, pool details and /etc/storpool.conf, from text only.

Sources: spec/cloudstack-plugin.md 1.1 and 5.1, spec/storpool-api.md 10.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.spi.errors import InvalidParameter
from harness.storpool.secret import Secret

API_HOST = "SP_API_HTTP_HOST"
API_PORT = "SP_API_HTTP_PORT"
TOKEN = "SP_AUTH_TOKEN"
TEMPLATE = "SP_TEMPLATE"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 81

_SCHEME = "storpool://"
_TOKEN_TEXT = re.compile(r"[\x21-\x7e]{1,1024}")
_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_\-]{1,199}")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.\-]{0,252}[A-Za-z0-9])?\.?")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]{2,45}\]")
_URL_KEYS = {"SP_API_HTTP": API_HOST, API_HOST: API_HOST, TOKEN: TOKEN, TEMPLATE: TEMPLATE}


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the StorPool API for one pool."""

    endpoints: tuple[str, ...]
    """`host:port`, tried in turn."""
    token: Secret
    template: str
    """StorPool template that the pool's objects get."""

    def details(self) -> dict[str, str]:
        """As `storage_pool_details` keeps it; the token is in clear there."""
        return {API_HOST: ",".join(self.endpoints), TOKEN: self.token.reveal(), TEMPLATE: self.template}


def parse_url(url: str) -> Connection:
    """The connection of a pool URL, either `storpool://TOKEN@host:port/template` or
    `SP_API_HTTP=host:port;SP_AUTH_TOKEN=t;SP_TEMPLATE=n`. Hosts may be several, with commas between.

    Raises `InvalidParameter`, whose text never quotes the URL: it holds the token.
    """
    text = url.strip()
    if text[: len(_SCHEME)].lower() == _SCHEME:
        return _from_uri(text[len(_SCHEME) :])
    if "=" in text:
        return _from_pairs(text)
    raise InvalidParameter(
        "StorPool pool URL: expected storpool://TOKEN@host:port/template or "
        "SP_API_HTTP=host:port;SP_AUTH_TOKEN=token;SP_TEMPLATE=template"
    )


def from_details(details: Mapping[str, str]) -> Connection:
    """The connection that the details of a pool hold; `InvalidParameter` when one is missing."""
    missing = [key for key in (API_HOST, TOKEN, TEMPLATE) if not details.get(key)]
    if missing:
        raise InvalidParameter(f"StorPool pool: {', '.join(missing)} missing in the pool's details; add the pool again")
    return _connection(details[API_HOST], details[TOKEN], details[TEMPLATE])


def _from_uri(rest: str) -> Connection:
    # The last @ and the last / divide: a token may hold either.
    authority, slash, template = rest.rpartition("/")
    token, at, hosts = authority.rpartition("@")
    if not slash or not at:
        raise InvalidParameter("StorPool pool URL: expected storpool://TOKEN@host:port/template")
    return _connection(hosts, token, template)


def _from_pairs(text: str) -> Connection:
    values: dict[str, str] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        name = _URL_KEYS.get(key.strip())
        if name is None or not equals:
            raise InvalidParameter(
                "StorPool pool URL: a part is not one of SP_API_HTTP=, SP_AUTH_TOKEN= and SP_TEMPLATE="
            )
        if name in values:
            raise InvalidParameter(f"StorPool pool URL: {key.strip()} is given twice")
        values[name] = value.strip()
    for shown, name in (("SP_API_HTTP", API_HOST), (TOKEN, TOKEN), (TEMPLATE, TEMPLATE)):
        if not values.get(name):
            raise InvalidParameter(f"StorPool pool URL: {shown} is missing")
    return _connection(values[API_HOST], values[TOKEN], values[TEMPLATE])


def _connection(hosts: str, token: str, template: str) -> Connection:
    if not _TOKEN_TEXT.fullmatch(token):
        raise InvalidParameter("StorPool pool: SP_AUTH_TOKEN is empty or has characters that no header can carry")
    if not _TEMPLATE_NAME.fullmatch(template):
        raise InvalidParameter(f"StorPool pool: SP_TEMPLATE {template!r} is not a StorPool template name")
    return Connection(parse_endpoints(hosts), Secret(token), template)


def parse_endpoints(hosts: str, default_port: int = DEFAULT_PORT) -> tuple[str, ...]:
    """`host:port` for each of the hosts, which commas divide; the port may be left out."""
    return tuple(_endpoint(host.strip(), default_port) for host in hosts.split(","))


def _endpoint(text: str, default_port: int) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default_port)
    if not (_HOST_NAME.fullmatch(host) or _IPV6.fullmatch(host)):
        raise InvalidParameter("StorPool pool: an API address is not host:port; write an IPv6 address as [addr]:port")
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise InvalidParameter(f"StorPool pool: the port of API host {host} is not between 1 and 65535")
    return f"{host}:{int(port)}"


@dataclass(frozen=True, slots=True)
class HostConfiguration:
    """What /etc/storpool.conf and its directory say about one host."""

    values: Mapping[str, str]

    def __repr__(self) -> str:
        return f"HostConfiguration({', '.join(sorted(self.values))})"

    @property
    def client_id(self) -> int:
        """SP_OURID: the StorPool client id of this host."""
        text = self._need("SP_OURID")
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:5]) <= 4095):
            raise InvalidParameter(f"storpool.conf: SP_OURID {text!r} is not a client id (1 to 4095)")
        return int(text)

    @property
    def cluster_id(self) -> str:
        """SP_CLUSTER_ID, `<location>.<subcluster>`."""
        return self._need("SP_CLUSTER_ID").lower()

    @property
    def endpoints(self) -> tuple[str, ...]:
        port = self.values.get(API_PORT, str(DEFAULT_PORT))
        if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
            raise InvalidParameter("storpool.conf: SP_API_HTTP_PORT is not between 1 and 65535")
        return parse_endpoints(self.values.get(API_HOST, DEFAULT_HOST), int(port))

    @property
    def token(self) -> Secret:
        text = self._need(TOKEN)
        if not _TOKEN_TEXT.fullmatch(text):
            raise InvalidParameter("storpool.conf: SP_AUTH_TOKEN has characters that no header can carry")
        return Secret(text)

    def _need(self, key: str) -> str:
        value = self.values.get(key)
        if not value:
            raise InvalidParameter(f"storpool.conf: {key} is not set for this host")
        return value


def is_configuration_file(name: str) -> bool:
    """Whether a file in /etc/storpool.conf.d counts, by its bare name."""
    return name.endswith(".conf") and not name.startswith(".")


def parse_configuration(
    texts: Sequence[str], host_name: str, environment: Mapping[str, str] | None = None
) -> HostConfiguration:
    """Settings of one host from /etc/storpool.conf and then the files of /etc/storpool.conf.d in sorted order.

    Later files win; a section named after the host wins over settings before any section. The environment overrides
    only the token and the API's address. Raises `InvalidParameter` naming file and line, never the line's text.
    """
    common: dict[str, str] = {}
    own: dict[str, str] = {}
    for number, text in enumerate(texts, start=1):
        _read_file(number, text, host_name, common, own)
    values = {**common, **own}
    for key in (TOKEN, API_HOST, API_PORT):
        if environment is not None and environment.get(key):
            values[key] = environment[key]
    return HostConfiguration(values)


def _read_file(number: int, text: str, host_name: str, common: dict[str, str], own: dict[str, str]) -> None:
    ignored: dict[str, str] = {}
    target = common
    for position, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            target = own if line[1:-1].strip() == host_name else ignored
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise InvalidParameter(f"storpool.conf: file {number}, line {position} is neither a setting nor a section")
        target[key.strip()] = value.strip()
