"""What the agent fetches images with: curl, the head of a page, and the programs that print sums."""

from __future__ import annotations

import hashlib

from harness.worlds.memory.model_programs import COPY_SECONDS, Failed, Run
from harness.worlds.memory.model_running import ModelProgram

SUMS = ("md5sum", "sha1sum", "sha224sum", "sha256sum", "sha384sum", "sha512sum")


def fetched(run: Run) -> bytes:
    """What the program prints; a download goes on when the agent dies, as any program does."""
    arguments, images = run.arguments, run.machine.images
    if arguments[0] in SUMS:
        method = arguments[0].removesuffix("sum")
        digest = hashlib.new(method, images[arguments[1]], usedforsecurity=False).hexdigest()
        return f"{digest}  {arguments[1]}\n".encode()
    if any("://" in argument for argument in arguments):
        raise Failed("refused: a URL may hold a secret, which everybody sees in the arguments of a program")
    content = run.files.page(run.stdin.decode().removeprefix('url = "').rstrip('"\n'))
    if content is None:
        raise Failed("The requested URL returned error: 404")
    if arguments[0] == "sh":
        return content[: int(arguments[3])]
    file = arguments[arguments.index("--output") + 1]

    def download(program: ModelProgram) -> None:
        images[file] = content[: len(content) // 2]
        if not program.work(COPY_SECONDS / 2, 1.0):
            images[file] = content

    run.work(download)
    return b""
