"""`harness.spi.ports.Endpoint` over HTTPS with mutual TLS: the sending side of `harness/agent/server.py`."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from http import HTTPStatus

import msgspec
import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from harness.spi.commands import Answer, AnyAnswer, AnyCommand
from harness.spi.errors import ErrorClass, InvalidParameter, Unavailable, Unknown

CONNECT_SECONDS = 10.0
ANSWER_LIMIT = 8 * 1024 * 1024
COMMAND_ID = "X-Command-Id"

_decoder = msgspec.json.Decoder(AnyAnswer)
_REFUSED = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.LENGTH_REQUIRED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    }
)


class HttpsEndpoint:
    """An agent, or the secondary storage role, at `url` (`https://host:port`).

    `ca_file` is what the other side's certificate must come from; `cert_file` and `key_file` show this side to be
    `management`. With `new_id` (for example `Runtime.uuid`) every command carries an id of its own, under which a copy
    of it that the network delivers late is not carried out again.
    """

    def __init__(
        self,
        name: str,
        url: str,
        ca_file: str,
        cert_file: str,
        key_file: str,
        *,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        if not url.startswith("https://"):
            raise InvalidParameter(f"endpoint {name}: {url!r} is not an https:// URL")
        self._name = name
        self._url = url.rstrip("/") + "/command"
        self._ca_file = ca_file
        self._certificate = (cert_file, key_file)
        self._new_id = new_id

    @property
    def name(self) -> str:
        return self._name

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        """A refusal by the server, before anything was done, is an answer with `result` false."""
        what = f"{type(command).__name__} to {self._name} ({self._url})"
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._new_id is not None:
            headers[COMMAND_ID] = self._new_id()
        # A session for one command: one that is kept alive could break just when the command is on its way.
        with requests.Session() as session:
            session.trust_env = False
            try:
                response = session.post(
                    self._url,
                    data=msgspec.json.encode(command),
                    headers=headers,
                    timeout=(min(CONNECT_SECONDS, timeout), timeout),
                    verify=self._ca_file,
                    cert=self._certificate,
                    allow_redirects=False,
                    stream=True,
                )
                with response:
                    return _read(what, response.status_code, _body(response))
            except (requests.RequestException, HTTPError, OSError) as error:
                raise _lost(what, error) from error


def _body(response: requests.Response) -> bytes:
    data: bytes = response.raw.read(ANSWER_LIMIT + 1)
    return data


def _read(what: str, status: int, body: bytes) -> AnyAnswer:
    if status == HTTPStatus.OK and len(body) <= ANSWER_LIMIT:
        try:
            answer: AnyAnswer = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unknown(f"{what}: what came back is no answer: {error}; is it another version?") from error
        return answer
    said = f"{what}: HTTP {status}: {_said(body)}"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise Unavailable(said)
    if status in _REFUSED:
        return Answer(result=False, details=said, error_class=ErrorClass.PERMANENT)
    raise Unknown(said)


def _said(body: bytes) -> str:
    return body[:500].decode(errors="replace")


def _lost(what: str, error: Exception) -> Unavailable | Unknown:
    """Certain not to have arrived: what failed before a connection stood, or was refused by either side's TLS."""
    for cause in _causes(error):
        if isinstance(cause, NewConnectionError | ConnectTimeoutError | requests.ConnectTimeout):
            return Unavailable(f"{what}: not reached: {cause}")
        if isinstance(cause, ssl.SSLError) and _is_refusal(cause):
            return Unavailable(f"{what}: TLS refused: {cause.reason or cause}; check the certificates and their CA")
    if isinstance(error, requests.exceptions.InvalidURL) or (type(error) is OSError and "TLS" in str(error)):
        return Unavailable(f"{what}: {error}")
    return Unknown(
        f"{what}: sent, but no answer came ({type(error).__name__}); it may have been, or still be, carried out"
    )


def _is_refusal(error: ssl.SSLError) -> bool:
    """A certificate that was not taken, by us or (an alert) by them; not a connection that broke."""
    return isinstance(error, ssl.SSLCertVerificationError) or "ALERT" in (error.reason or "").upper()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what requests and urllib3 wrapped in it, outermost first."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        item = pending.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        pending += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
