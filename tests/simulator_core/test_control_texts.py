"""Control calls that mean nothing are told what would."""

from __future__ import annotations

import re

import pytest

from simulator.api import control
from simulator.api.errors import Refused
from simulator.api.routing import route
from simulator.settings import Settings


def test_the_words_of_a_refusal_are_those_that_are_documented() -> None:
    assert control.__doc__ is not None
    documented = sorted(set(re.findall(r"/_sim/([a-z]+)", control.__doc__)))
    assert documented == control.WORDS.split(", ")


def test_a_call_without_a_body_is_told_that_it_needs_one() -> None:
    with pytest.raises(Refused, match="needs a body, a JSON object"):
        control.decode(b" ", dict)


def test_a_control_call_to_a_simulator_without_control_is_told_about_the_option() -> None:
    with pytest.raises(Refused, match="--control"):
        route("GET", "/_sim/calls", Settings())
