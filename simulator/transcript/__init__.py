"""Transcripts: what clients asked a StorPool API and what it answered, kept as data, so that a simulator can be held to
a real cluster and a cluster to a simulator.

    python -m simulator.transcript record --listen 127.0.0.1:8181 --to http://10.1.2.3:81 FILE
    python -m simulator.transcript replay --check FILE
    python -m simulator.transcript replay --against http://10.1.2.3:81 FILE

A file is JSON lines in UTF-8. The first is the header:

    {"transcript": 1, "started": 1700000000.25, "cluster": "simulator" | "real", "note": "..."}

`started` is Unix time. `cluster` is what whoever recorded says it was. Every other line is one exchange, in the order
of the answers:

    {"at": 0.5, "took": 0.01, "verb": "POST", "path": "VolumeCreate", "json": {"name": "a", "size": 512},
     "status": 200, "answer": {"generation": 7, "data": {"ok": true, "generation": 7, "globalId": "d.n.b1"}}}

`at` is when it was asked, in seconds after `started`, and `took` how many it took. `path` is what follows
`/ctrl/1.0/`, percent-decoded, with its prefixes. `json` is absent when none was sent. `answer` is the whole envelope.
An exchange that is not JSON on both sides is passed on and left out.

Secrets are not in it: headers are not kept, a token that turns up elsewhere is cut out, and secrets of iSCSI and, where
asked for, values of the key-value store have stand-ins, the same for the same value (`simulator.transcript.redact`).
What may differ from one cluster to another is told in `simulator.transcript.compare`.
"""

from simulator.transcript.compare import Comparison, Difference
from simulator.transcript.format import Exchange, Header, Transcript, TranscriptError, read
from simulator.transcript.replay import check, hold

__all__ = [
    "Comparison",
    "Difference",
    "Exchange",
    "Header",
    "Transcript",
    "TranscriptError",
    "check",
    "hold",
    "read",
]
