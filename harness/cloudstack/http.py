"""The API over HTTP: a thin shell around `ManagementServer.api` (spec/cloudstack-api.md section 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from harness.cloudstack.api.dispatch import ApiReply
from harness.cloudstack.api.errors import MALFORMED, ApiError

PATH = "/client/api"
MAX_BODY = 1 << 20
Api = Callable[[Sequence[tuple[str, str]]], ApiReply]


def application(api: Api) -> Starlette:
    """The ASGI application; GET and POST form, parameters of query and body together."""

    async def answer(request: Request) -> Response:
        try:
            query = _parse(request.url.query) + _parse(await _body(request))
        except ApiError as error:
            return _json(ApiReply(error.code, msgspec.json.encode({"errorresponse": error.body()})))
        return _json(await run_in_threadpool(api, query))

    return Starlette(routes=[Route(PATH, answer, methods=["GET", "POST"])])


def server(api: Api, host: str, port: int, fd: int | None = None) -> uvicorn.Server:
    """A server whose `run()` serves until `should_exit` is set; no access log, whose lines would hold API keys."""
    config = uvicorn.Config(
        application(api),
        host=host,
        port=port,
        fd=fd,
        access_log=False,
        log_level="warning",
        lifespan="off",
        timeout_keep_alive=30,
        limit_concurrency=256,
    )
    return uvicorn.Server(config)


async def _body(request: Request) -> str:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise ApiError(MALFORMED, f"the request's body has more than {MAX_BODY} bytes")
    except ClientDisconnect:
        raise ApiError(MALFORMED, "the client went away") from None
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ApiError(MALFORMED, "the request's body is not UTF-8") from None


def _parse(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise ApiError(MALFORMED, "the request's parameters cannot be decoded") from None


def _json(reply: ApiReply) -> Response:
    return Response(reply.body, reply.status, media_type="application/json")
