"""StorPoolModifyStoragePoolCommand: prove that this host reaches StorPool (spec/cloudstack-plugin.md section 5.2).

The check volume is detached again, so that it holds nothing up when it is to be deleted; the original left it.
"""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.storpool_conf import read_host_configuration
from harness.agent.tools import Tools
from harness.spi.commands import StorPoolModifyStoragePoolAnswer, StorPoolModifyStoragePoolCommand
from harness.spi.errors import Error


def handle(tools: Tools, command: StorPoolModifyStoragePoolCommand) -> StorPoolModifyStoragePoolAnswer:
    """With `add` false the check volume is only detached."""
    deadline = Deadline(tools.runtime, command.wait)
    configuration = read_host_configuration(tools.host, tools.config)
    details = ""
    with tools.volumes([command.volume_path], deadline.remaining):
        if command.add:
            # Every host proves itself with the same volume, perhaps at this moment.
            tools.adaptor.connect(command.volume_path, size=None, timeout=deadline.remaining, shared=True)
        try:
            tools.adaptor.disconnect(command.volume_path)
        except Error as error:
            details = f"the host reaches StorPool, but the check volume stays attached: {error}"
            if not command.add:
                raise
    return StorPoolModifyStoragePoolAnswer(
        result=True, details=details, client_node_id=configuration.client_id, cluster_id=configuration.cluster_id
    )
