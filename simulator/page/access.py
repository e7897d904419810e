"""Who may see the page: whoever is on this machine, and whoever has the API's token.

A browser runs scripts of pages from anywhere, and it is on this machine. So a page of another name, which may lead here
(DNS rebinding), is refused by the Host header, and a form that another page sends has no token of this process.
A browser elsewhere is asked for a password, which is the API's token; the user's name does not matter.
"""

from __future__ import annotations

import base64
import ipaddress
from urllib.parse import urlsplit

from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response

from simulator.api.token import matches

_ASK = {"WWW-Authenticate": 'Basic realm="StorPool simulator: the password is the API token", charset="UTF-8"'}


def is_loopback(host: str) -> bool:
    """An address of this machine that no other can reach, or its name."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def refusal(http: HttpRequest, token: str) -> Response | None:
    """The answer to a client that may not see the page; None for one that may."""
    if matches(_password(http.headers.get("authorization", "")), token):
        return None
    if http.client is None or not is_loopback(http.client.host):
        return PlainTextResponse("Log in with the API's token as the password.\n", 401, _ASK)
    if not is_loopback(_host(http)):
        return PlainTextResponse("Ask for this page as localhost, or log in with the API's token.\n", 403)
    return None


def same_origin(http: HttpRequest) -> bool:
    """Whether a form comes from this page, as far as the browser says where it comes from."""
    origin = http.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == http.headers.get("host")


def _host(http: HttpRequest) -> str:
    try:
        return urlsplit(f"//{http.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _password(header: str) -> str | None:
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return None
