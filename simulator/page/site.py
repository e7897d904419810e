"""What the HTTP server serves to browsers: `/` and what belongs to it under `/page/`.

    GET  /                  the page
    GET  /page/live.css, /page/live.js
    GET  /page/log?after=N  calls as they come, as Server-Sent Events
    POST /page/faults       a form: switches a fault on
    POST /page/faults/lift  a form: lifts the fault `id`, or all of them

Forms are not the control API: they come from a browser, so what counts is a token that only this page knows.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from importlib import resources
from typing import Protocol
from urllib.parse import parse_qsl

import msgspec
import structlog
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from simulator.api import body, wire
from simulator.api.desk import after
from simulator.api.errors import Refused, invalid
from simulator.api.faults import Faults, Wanted
from simulator.api.log import Log
from simulator.api.token import matches
from simulator.cluster.overview import Overview
from simulator.page import access
from simulator.page.render import render

ROWS = 300
"""Of each table."""
LINES = 50
"""Of the log that a page begins with, and that followers are sent at a time."""
FOLLOWERS = 16
"""Pages that can be live at a time."""
_BREATH = 0.2
"""Seconds between two batches to a follower."""
_SILENCE = 15.0
"""Seconds after which a follower is sent something in any case."""
_FORM_BYTES = 8192
_FORM_SECONDS = 10.0
_FILES = {"/page/live.css": "text/css", "/page/live.js": "text/javascript"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_log = structlog.get_logger("simulator.page")
_encode = msgspec.json.Encoder().encode


class View(Protocol):
    """What the page sees of the service."""

    def overview(self, rows: int) -> Overview: ...


class Site:
    """`faults` is None where they cannot be switched on; `backend` as in `render`."""

    def __init__(self, view: View, log: Log, faults: Faults | None, token: str, backend: str | None) -> None:
        self._view = view
        self._log = log
        self._faults = faults
        self._token = token
        self._backend = backend
        self._form_token = secrets.token_urlsafe()
        self._followers = 0

    def __call__(self, http: HttpRequest) -> ASGIApp | None:
        """What serves this request; None when it is not for this site."""
        path = http.scope["path"]
        return self._serve if path == "/" or path.startswith("/page/") else None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive)
        try:
            response = access.refusal(http, self._token) or await self._response(http)
        except ClientDisconnect:
            return
        except Exception:  # a defect of the page ends nothing else
            _log.exception("page failed", verb=http.method, path=http.scope["path"])
            response = PlainTextResponse("The page failed; see the simulator's log.\n", 500)
        response.headers.update(_HEADERS)
        await response(scope, receive, send)

    async def _response(self, http: HttpRequest) -> Response:
        path = http.scope["path"]
        try:
            match (http.method, path):
                case ("GET", "/"):
                    return self._page({}, "", 200)
                case ("GET", "/page/log"):
                    return self._followed(http)
                case ("GET", _) if path in _FILES:
                    name = path.rpartition("/")[2]
                    return Response(resources.files(__package__).joinpath(name).read_bytes(), media_type=_FILES[path])
                case ("POST", "/page/faults" | "/page/faults/lift"):
                    return await self._changed(http, lift=path.endswith("lift"))
        except Refused as refused:
            return PlainTextResponse(f"{refused.descr}\n", 400)
        return PlainTextResponse("There is no such page.\n", 404)

    def _page(self, given: Mapping[str, str], error: str, status: int) -> Response:
        page = render(
            self._view.overview(ROWS),
            self._log.after(0, LINES),
            backend=self._backend,
            faults=None if self._faults is None else self._faults.shown(),
            form_token=self._form_token,
            given=given,
            error=error,
        )
        return HTMLResponse(page, status)

    # Forms.

    async def _changed(self, http: HttpRequest, *, lift: bool) -> Response:
        try:
            content = await body.read(http, _FORM_BYTES, _FORM_SECONDS)
            given = dict(parse_qsl(content.decode("ascii", "replace"), max_num_fields=20))
        except (body.TooLarge, TimeoutError, ValueError) as error:
            raise invalid(f"The form cannot be read: {error}") from error
        if not access.same_origin(http) or not matches(given.pop("form_token", None), self._form_token):
            return PlainTextResponse("This form is not of this page, or of an earlier one: load the page again.\n", 403)
        if self._faults is None:
            return PlainTextResponse("Faults need a simulator that was started with --control.\n", 403)
        try:
            if lift:
                _lift(self._faults, given.get("id", ""))
            else:
                self._faults.add(_wanted(given))
        except Refused as refused:
            return self._page(given, refused.descr, 400)
        return RedirectResponse("/#faults", 303)

    # The log as it runs.

    def _followed(self, http: HttpRequest) -> Response:
        if self._followers >= FOLLOWERS:
            return PlainTextResponse(f"{FOLLOWERS} pages are live already.\n", 503)
        seen = http.headers.get("last-event-id")
        number = after(http.scope["query_string"] if seen is None else f"after={seen}".encode())
        return StreamingResponse(self._events(number), media_type="text/event-stream")

    async def _events(self, number: int) -> AsyncIterator[bytes]:
        self._followers += 1
        try:
            yield b"retry: 2000\n\n"
            async for lines in self._log.follow(number, LINES, _SILENCE):
                yield b"".join(b"id: %d\ndata: %b\n\n" % (line.number, _encode(line)) for line in lines) or b":\n\n"
                await asyncio.sleep(_BREATH)
        finally:
            self._followers -= 1


def _lift(faults: Faults, number: str) -> None:
    if number == "all":
        faults.lift_all()
    elif number.isascii() and number.isdecimal() and len(number) < 20:
        faults.lift(int(number))
    else:
        raise invalid("Which fault shall be lifted?")


def _wanted(given: Mapping[str, str]) -> Wanted:
    """A field that was left empty was not given, and one that is for other kinds is not looked at."""
    fields = {key: value.strip() for key, value in given.items() if value.strip()}
    if fields.get("kind") != "delay":
        fields.pop("seconds", None)
    if fields.get("kind") not in ("refuse", "transient"):
        fields.pop("error", None)
    try:
        return msgspec.convert(fields, Wanted, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(wire.explained(str(error))) from error
