"""`storpool [-B] [-j] [-M] WORDS`: StorPool's command line, in the forms of `simulator.commands.grammar`.

Prints `OK` or a table; with `-j` the API's envelope and nothing else, also on failure. Exits with 0, or with 1 on any
failure.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence

from simulator.commands import configuration, console
from simulator.commands.api import Answer, Unreachable, perform
from simulator.commands.configuration import ConfigurationError
from simulator.commands.grammar import Options, options, parse
from simulator.commands.text import render
from simulator.commands.words import UsageError, tokenise


def main(argv: Sequence[str]) -> int:
    chosen, words, unknown = options(tokenise(argv))
    try:
        if unknown is not None:
            raise UsageError(f"unknown option '{unknown}'; there are -B, -j, -M, before the other words")
        return _show(_perform(chosen, words), chosen)
    except UsageError as error:
        return _failed(chosen, "cliParseArgs", str(error))
    except ConfigurationError as error:
        return _failed(chosen, "cliMissingConfigVariable", str(error))
    except Unreachable as error:
        return _failed(chosen, "unavailable", str(error), transient=True)


def _perform(chosen: Options, words: Sequence[str]) -> Answer:
    settings = functools.cache(configuration.read)
    action = parse(words, lambda: configuration.client_id(settings()), batch=chosen.batch)
    return perform(action, configuration.endpoint(settings()), multicluster=chosen.multicluster)


def _show(answer: Answer, chosen: Options) -> int:
    error = answer.error
    if chosen.json:
        # Nothing on stderr: callers read both as one.
        print(answer.text)
    elif error is None:
        print(render(answer.request.call, answer.envelope["data"]))
    else:
        print(f"Error: {error.get('name')}: {error.get('descr')}", file=sys.stderr)
    return 0 if error is None else 1


def _failed(chosen: Options, name: str, descr: str, *, transient: bool = False) -> int:
    """A failure that the API had no part in, in its shape all the same."""
    if chosen.json:
        print(json.dumps({"error": {"name": name, "descr": descr, "transient": transient}}))
    else:
        print(f"Error: {descr}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    console.run(main)
