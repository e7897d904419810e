"""The body of a request, as far as the limits let it come."""

from __future__ import annotations

import asyncio

from starlette.requests import Request as HttpRequest


class TooLarge(Exception):
    pass


def comes(http: HttpRequest) -> bool:
    """Whether there is one: HTTP has it announced."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in http.scope["headers"]
    )


async def read(http: HttpRequest, limit: int, seconds: float) -> bytes:
    """Raises `TooLarge` over so many bytes, announced or not, and TimeoutError when it takes longer."""
    announced = http.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(f"A body of {announced} bytes is too large; the limit is {limit}")
    body = bytearray()
    async with asyncio.timeout(seconds):
        async for part in http.stream():
            body += part
            if len(body) > limit:
                raise TooLarge(f"The body is too large; the limit is {limit} bytes")
    return bytes(body)
