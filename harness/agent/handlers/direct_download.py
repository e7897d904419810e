"""CheckUrlCommand, DirectDownloadCommand: a template straight to primary storage (spec/cloudstack-plugin.md 4.25)."""

from __future__ import annotations

from harness.agent import fetching, qemu_img
from harness.agent.copies import attached, check_size, detach
from harness.agent.deadline import Deadline
from harness.agent.operations import Kind, Operation
from harness.agent.tools import Tools
from harness.spi.commands import CheckUrlAnswer, CheckUrlCommand, CopyCmdAnswer, DirectDownloadCommand, shown
from harness.spi.errors import Error, InvalidParameter
from harness.spi.objects import DirectSource, TemplateObject
from harness.spi.ports import Output


def check(tools: Tools, command: CheckUrlCommand) -> CheckUrlAnswer:
    return CheckUrlAnswer(
        result=True, virtual_size=fetching.virtual_size(tools.host, tools.config, command.url, command.wait)
    )


def handle(tools: Tools, command: DirectDownloadCommand) -> CopyCmdAnswer:
    """The answer has the image's virtual size. The volume is detached, and the file removed, whatever happens."""
    source, path = command.source, command.destination.path
    if source.direct is None or path is None:
        raise InvalidParameter("a direct download needs a URL, and a volume with a path")
    deadline = Deadline(tools.runtime, command.wait)
    with (
        tools.copies.run(path) as copy,
        tools.volumes([path], deadline.remaining),
        tools.operations.begin(Kind.DIRECT_DOWNLOAD, None, [path]) as operation,
    ):
        copy.begin()
        copy.operation = operation.id
        try:
            answer = _fetch_and_copy(tools, source, source.direct, path, operation, deadline, copy.heard)
        except Error as error:
            _discard(tools, operation, error)
            raise
        _discard(tools, operation, None)
    return answer


def _fetch_and_copy(
    tools: Tools,
    source: TemplateObject,
    direct: DirectSource,
    path: str,
    operation: Operation,
    deadline: Deadline,
    output: Output,
) -> CopyCmdAnswer:
    file = fetching.fetch(tools.host, tools.config, direct.url, direct.checksum, operation.id, deadline)
    image = qemu_img.info(tools.host, file, source.format, deadline.remaining)
    qemu_img.check_guest_image(image, shown(direct.url))
    with attached(tools, path, deadline) as capacity:
        check_size(shown(direct.url), image.virtual_size, path, capacity)
        qemu_img.convert_to_device(tools.host, file, source.format, path, deadline.remaining, operation.id, output)
    return CopyCmdAnswer(result=True, path=path, size=image.virtual_size, details=detach(tools, path, operation))


def _discard(tools: Tools, operation: Operation, error: Error | None) -> None:
    """A file that cannot be removed now is removed by recovery."""
    try:
        tools.host.remove(fetching.file_of(tools.config, operation.id))
    except Error as problem:
        operation.leave_open()
        if error is not None:
            error.add_note(f"while cleaning up, the image that was fetched could not be removed: {problem}")
