"""StorPoolModifyStoragePoolCommand: prove that this host reaches StorPool (spec/cloudstack-plugin.md section 5.2).

The check volume is detached again, so that it holds nothing up when it is to be deleted; the original left it.
"""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.operations import Kind
from harness.agent.storpool_conf import read_host_configuration
from harness.agent.tools import Tools
from harness.spi.commands import StorPoolModifyStoragePoolAnswer, StorPoolModifyStoragePoolCommand
from harness.spi.errors import Error


def handle(tools: Tools, command: StorPoolModifyStoragePoolCommand) -> StorPoolModifyStoragePoolAnswer:
    """With `add` false the check volume is only detached."""
    deadline = Deadline(tools.runtime, command.wait)
    configuration = read_host_configuration(tools.host, tools.config)
    details = ""
    path = command.volume_path
    with tools.volumes([path], deadline.remaining), tools.operations.begin(Kind.CHECK, None, [path]) as operation:
        if command.add:
            # Every host proves itself with the same volume, perhaps at this moment.
            tools.adaptor.connect(path, size=None, timeout=deadline.remaining, shared=True)
            # A copy of the request that arrives after the detach attaches it again, and nobody else looks for that.
            tools.operations.attach_may_come_late(path)
        try:
            tools.adaptor.disconnect(path)
        except Error as error:
            operation.leave_open()
            details = f"the host reaches StorPool, but the check volume stays attached: {error}"
            if not command.add:
                raise
    return StorPoolModifyStoragePoolAnswer(
        result=True, details=details, client_node_id=configuration.client_id, cluster_id=configuration.cluster_id
    )
