"""`storpool_req [-P] [-M] [-C CLUSTER] [--json JSON] [-N] CALL ARGUMENT...`: the vendor's own, from package `storpool`.

It prints the data of an answer, without the envelope. Errors go to stderr as JSON: exit status 3 for
objectDoesNotExist, 2 for any other of the API's, 1 for its own (spec storpool-api 8).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from simulator.commands import configuration, console


def main(argv: Sequence[str]) -> int:
    # Where simplejson is missing the vendor's library says so on stderr, and callers read that as JSON. Installing it
    # would change `requests` as well, which takes it without asking.
    sys.modules.setdefault("simplejson", json)
    from storpool import spconfig, spreq

    configuration.locate(spconfig.SPConfig)
    sys.argv[1:] = argv
    spreq.main()
    return 0


if __name__ == "__main__":
    console.run(main)
