"""`python -m simulator.transcript`: record a StorPool API, and hold another one to it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import click

from simulator.main import address, read_token
from simulator.transcript import Difference, Header, TranscriptError, check, hold, read
from simulator.transcript.format import Writer
from simulator.transcript.record import BASE, CALL_SECONDS, LONGEST_ANSWER, Recorder, is_loopback, target
from simulator.transcript.redact import Redaction

MOST_TOLD = 100


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Transcripts of StorPool APIs."""


def _listen(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    return address(value)


def _url(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    try:
        return None if value is None else target(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--listen", callback=_listen, default="127.0.0.1:8181", show_default=True, metavar="HOST:PORT")
@click.option("--to", callback=_url, required=True, metavar="URL", help="The API: http://HOST:PORT")
@click.option("--real", is_flag=True, help="It is a real cluster; the file says so.")
@click.option("--note", default="", help="Kept in the file.")
@click.option("--redact-values", is_flag=True, help="Keep stand-ins for values of the key-value store.")
@click.option("--anywhere", is_flag=True, help="Listen also where other machines can reach it.")
def record(
    file: Path,
    listen: tuple[str, int],
    to: tuple[str, int],
    real: bool,
    note: str,
    redact_values: bool,
    anywhere: bool,
) -> None:
    """Pass calls on to an API and write them to FILE, which must not exist.

    Prints one line `ready http://HOST:PORT`; SIGTERM or SIGINT ends it. Tokens pass through and are not kept.
    """
    if not anywhere and not is_loopback(listen[0]):
        raise click.UsageError(f"{listen[0]} is not of this machine alone; --anywhere if that is meant")
    header = Header(started=time.time(), cluster="real" if real else "simulator", note=note)
    try:
        writer = Writer(file, header)
    except OSError as error:
        raise click.ClickException(f"cannot write {file}: {error.strerror}") from error
    with contextlib.closing(writer):
        try:
            recorder = Recorder(listen, to, writer.add, header, Redaction(values=redact_values))
        except OSError as error:
            raise click.ClickException(f"cannot listen on {listen[0]}:{listen[1]}: {error.strerror}") from error
        # `shutdown` waits for the loop's end, so it must not be called from it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=recorder.shutdown).start())
        host, port = recorder.server_address[:2]
        click.echo(f"ready http://{f'[{host!s}]' if ':' in str(host) else str(host)}:{port}")
        sys.stdout.flush()
        with recorder:
            recorder.serve_forever(poll_interval=0.1)
    if recorder.failed:
        raise click.ClickException(f"{file} lacks exchanges: {recorder.failed}")
    if recorder.left_out:
        click.echo(f"left out: {recorder.left_out} exchanges that are not JSON on both sides", err=True)


class Remote:
    """A StorPool API."""

    def __init__(self, to: tuple[str, int], token: str, *, pace: bool) -> None:
        self._to, self._token, self._pace = to, token, pace

    def pause(self, seconds: float) -> None:
        if self._pace:
            time.sleep(seconds)

    def ask(self, verb: str, path: str, body: bytes, took: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._to, timeout=max(CALL_SECONDS, took))
        with contextlib.closing(connection):
            target_path = quote(BASE + path, safe="/~@*:")
            if verb == "GET" and body:
                target_path += f"?json={quote(body, safe='')}"
            headers = {"Authorization": f"Storpool v1:{self._token}"}
            connection.request(verb, target_path, body if verb == "POST" else None, headers)
            response = connection.getresponse()
            return response.status, response.read(LONGEST_ANSWER)


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--check", "checking", is_flag=True, help="Hold a simulator in memory to it.")
@click.option(
    "--against", callback=_url, metavar="URL", help="Hold this API to it. The recorded changes are made there!"
)
@click.option("--token-file", type=click.Path(path_type=Path), help="Of the API: mode 600; else SPLAB_TOKEN.")
@click.option("--pace", is_flag=True, help="Ask the API no faster than was recorded.")
@click.option("--ignore", multiple=True, metavar="FIELD", help="Its values do not count. May be repeated.")
@click.option("--keep-going", is_flag=True, help="Do not stop changing the API at the first difference.")
def replay(
    file: Path,
    checking: bool,
    against: tuple[str, int] | None,
    token_file: Path | None,
    pace: bool,
    ignore: tuple[str, ...],
    keep_going: bool,
) -> None:
    """Ask again what FILE has, and tell what is answered otherwise; exit 1 if anything is."""
    if checking == (against is not None):
        raise click.UsageError("either --check or --against URL")
    try:
        transcript = read(file)
    except (TranscriptError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if against is None:
        differences = check(transcript, frozenset(ignore))
    else:
        token = read_token(token_file, os.environ)
        differences = hold(Remote(against, token, pace=pace), transcript, frozenset(ignore))
    try:
        told = _tell(differences, MOST_TOLD if checking or keep_going else 1)
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"the API cannot be asked: {error}") from error
    if told:
        sys.exit(1)
    click.echo(f"{len(transcript.exchanges)} exchanges, no difference")


def _tell(differences: Iterator[Difference], most: int) -> int:
    """How many were told; it ends with the last that may be."""
    told = 0
    for difference in differences:
        click.echo(str(difference))
        told += 1
        if told == most:
            click.echo("and no further")
            break
    return told


if __name__ == "__main__":
    main()
