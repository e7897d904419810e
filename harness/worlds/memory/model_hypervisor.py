"""`harness.spi.ports.Hypervisor` over a model machine: libvirt as measured in spec/lab-facts.md section 3."""

from __future__ import annotations

from harness.runtime.process import SimulatedRuntime
from harness.spi.errors import Conflict, Error, Unavailable, Unknown
from harness.spi.passphrase import Passphrase
from harness.spi.ports import DomainState
from harness.worlds.memory import model_migration
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_domain import ModelDomain
from harness.worlds.memory.model_domain_xml import disk_element, live_xml, read_disk, read_domain

UNPLUG_SECONDS = 0.1
"""A guest that is up lets a disk go within this."""
UNPLUG_TIMEOUT = 5.0
"""After this a detach returns without error although the guest still has the disk."""

_ON = (DomainState.RUNNING, DomainState.PAUSED)


class ModelHypervisor:
    """One agent's connection to the machine's libvirtd; its runtime fences it when the agent is killed.

    What libvirtd was told takes effect before the call waits, so a kill of the agent does not undo it.
    """

    def __init__(self, machine: Machine, runtime: SimulatedRuntime) -> None:
        self._machine = machine
        self._runtime = runtime

    def domains(self) -> dict[str, DomainState]:
        self._reach("list the domains")
        return {name: domain.state for name, domain in sorted(self._machine.domains.items())}

    def xml(self, name: str) -> str:
        self._reach(f"read domain {name}")
        return live_xml(self._machine.find(name))

    def create(self, xml: str) -> None:
        domain = read_domain(xml)
        self._begin("create", domain.name)
        present = self._machine.domains.get(domain.name)
        if present is not None and present.state in _ON:
            raise Conflict(f"domain '{domain.name}' is {present.state} on {self._machine.name} already")
        for other in self._machine.domains.values():
            if other.name != domain.name and domain.uuid and other.uuid == domain.uuid:
                raise Error(f"operation failed: domain '{other.name}' already exists with uuid {domain.uuid}")
        # Defined first: libvirt keeps the definition of a domain that it could not start.
        self._machine.domains[domain.name] = domain
        self._machine.power_on(domain)
        self._end("create", domain.name)

    def shutdown(self, name: str) -> None:
        self._begin("shutdown", name)
        domain = self._machine.find(name)
        if domain.state in _ON:
            self._machine.press_power_button(domain)

    def destroy(self, name: str) -> None:
        self._begin("destroy", name)
        domain = self._machine.domains.get(name)
        if domain is not None and domain.state in _ON:
            self._machine.power_off(domain)
            self._end("destroy", name)

    def undefine(self, name: str) -> None:
        self._begin("undefine", name)
        domain = self._machine.domains.get(name)
        if domain is None:
            return
        if domain.state in _ON:
            domain.transient = True
            return
        del self._machine.domains[name]

    def attach_device(self, name: str, xml: str) -> None:
        element = disk_element(xml)
        self._begin("attach-device", name)
        self._machine.plug(self._running(name), element)
        self._end("attach-device", name)

    def detach_device(self, name: str, xml: str) -> None:
        """As libvirt, it returns without error also when the guest did not let the disk go."""
        target = read_disk(disk_element(xml)).target
        self._begin("detach-device", name)
        gone = self._machine.unplug(self._running(name), target)
        self._runtime.sleep(UNPLUG_SECONDS if gone else UNPLUG_TIMEOUT)
        self._end("detach-device", name)

    def update_device(self, name: str, xml: str) -> None:
        element = disk_element(xml)
        self._begin("update-device", name)
        self._machine.change_medium(self._running(name), element)
        self._end("update-device", name)

    def migratable_xml(self, name: str) -> str:
        self._reach(f"read domain {name}")
        return live_xml(self._running(name))

    def migrate(self, name: str, uri: str, xml: str, *, converge: bool, timeout: float) -> None:  # noqa: ARG002 - port
        self._begin("migrate", name)
        job = model_migration.begin(self._machine, self._running(name), uri, xml)
        ended = self._runtime.event(f"the end of the migration of {name}")
        job.listeners.append(ended)
        in_time = ended.wait(timeout)
        if not in_time:
            job.cancel.deliver()
            ended.wait()
        self._end("migrate", name)
        if job.error and not in_time:
            raise Unknown(f"cannot migrate {name}: it was not over within {timeout:g} s, and was cancelled")
        if job.error:
            raise Error(f"cannot migrate {name}: {job.error}")

    def cancel_migration(self, name: str, *, timeout: float) -> None:
        self._begin("cancel-migration", name)
        domain = self._machine.domains.get(name)
        job = None if domain is None else domain.migration
        if job is not None:
            ended = self._runtime.event(f"the end of the migration of {name}")
            job.listeners.append(ended)
            job.cancel.deliver()
            if not ended.wait(timeout):
                raise Unknown(f"the migration of {name} is still under way after {timeout:g} s")
        self._end("cancel-migration", name)

    def resume(self, name: str) -> None:
        self._begin("resume", name)
        domain = self._running(name)
        if domain.inactive and domain.transient:
            raise Error(f"Requested operation is not valid: domain '{name}' waits for an incoming migration")
        self._machine.resume(domain)
        self._end("resume", name)

    def disk_size(self, name: str, target: str) -> int:
        self._reach(f"read the size of {target} of domain {name}")
        return self._machine.disk(self._running(name), target).size

    def resize_disk(self, name: str, target: str, size: int) -> None:
        self._begin("resize-disk", name)
        self._machine.resize(self._running(name), target, size)
        self._end("resize-disk", name)

    def secrets(self) -> tuple[str, ...]:
        self._reach("list the secrets")
        return tuple(sorted(self._machine.storage.secrets))

    def define_secret(self, device: str, passphrase: Passphrase) -> None:
        self._begin("define the secret of", device)
        self._machine.storage.secrets[device] = passphrase.reveal()
        self._end("define the secret of", device)

    def undefine_secret(self, device: str) -> None:
        self._begin("undefine the secret of", device)
        self._machine.storage.secrets.pop(device, None)
        self._end("undefine the secret of", device)

    def _running(self, name: str) -> ModelDomain:
        domain = self._machine.find(name)
        if domain.state not in _ON:
            raise Conflict(f"Requested operation is not valid: domain '{name}' is not running")
        return domain

    def _begin(self, verb: str, name: str) -> None:
        self._runtime.point("effect-begin", f"{self._machine.name}: {verb} {name}")
        self._reach(f"{verb} {name}")

    def _end(self, verb: str, name: str) -> None:
        self._runtime.point("effect-end", f"{self._machine.name}: {verb} {name}")
        if self._machine.libvirtd_gone:
            raise Unknown(f"cannot {verb} {name}: the connection to libvirtd of {self._machine.name} broke")

    def _reach(self, what: str) -> None:
        self._runtime.monotonic()
        if self._machine.libvirtd_gone:
            raise Unavailable(f"cannot {what}: libvirtd of {self._machine.name} is not reached")
