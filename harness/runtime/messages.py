"""What may befall a message between two processes of a simulated run."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class MessageFate(enum.Enum):
    """The first five befall a request at its point "send", the others an answer at its point "answer"."""

    LOST = "never arrives, and the sender waits until its time is over"
    LATE = "arrives `seconds` after the sender's time is over"
    TWICE = "arrives, and a copy of it `seconds` later"
    REFUSED = "cannot be sent: nobody accepts the connection"
    REJECTED = "is answered with `answer`, and nothing is done"
    ANSWER_LOST = "is carried out, and the sender waits for the answer until its time is over"
    ANSWER_LATE = "is answered `seconds` later, in time"
    BROKEN = "is carried out, and the connection breaks before the answer"


@dataclass(frozen=True, slots=True)
class MessageFault:
    """What a strike makes of one message. Times are virtual seconds."""

    fate: MessageFate
    seconds: float = 0.0
    answer: bytes = b""
    """Body of the error answer of `REJECTED`."""
