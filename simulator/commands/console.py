"""What the commands share as processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from simulator.commands.configuration import ConfigurationError


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Exit with what `main` makes of the arguments. Ctrl-C and a closed pipe end the process as they end any tool."""
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        sys.exit(main(sys.argv[1:]))
    except ConfigurationError as error:
        sys.exit(f"Error: {error}")
