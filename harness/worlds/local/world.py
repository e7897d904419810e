"""`harness.observers.World` on real hosts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from harness.observers import Cloud, Environment, Guest, Host, Json, Secondary, StorPool
from harness.worlds.local.guest import SshGuest
from harness.worlds.local.host import SshKvmHost
from harness.worlds.local.processes import ManagementProcess
from harness.worlds.several import SeveralStorPools
from lab.file import GuestImage

POLL_SECONDS = 0.1


class LocalWorld:
    """One case's view of a lab that all cases share. `unique` makes its names differ from every other case's."""

    def __init__(
        self,
        cloud: Cloud,
        storpools: Sequence[StorPool],
        secondary: Secondary,
        hosts: Sequence[SshKvmHost],
        environment: Environment,
        guest_image: GuestImage,
        unique: str,
        management: ManagementProcess,
    ) -> None:
        self._cloud = cloud
        self._storpools = tuple(storpools)
        self._storpool = storpools[0] if len(storpools) == 1 else SeveralStorPools(storpools)
        self._secondary = secondary
        self._hosts = tuple(hosts)
        self._environment = environment
        self._guest_image = guest_image
        self._unique = unique
        self._names = 0
        self._management = management

    @property
    def cloud(self) -> Cloud:
        return self._cloud

    @property
    def storpool(self) -> StorPool:
        return self._storpool

    @property
    def storpools(self) -> Sequence[StorPool]:
        return self._storpools

    @property
    def secondary(self) -> Secondary:
        return self._secondary

    @property
    def hosts(self) -> Sequence[Host]:
        return self._hosts

    @property
    def environment(self) -> Environment:
        return self._environment

    @property
    def real(self) -> bool:
        return True

    def guest(self, vm_id: str) -> Guest:
        return SshGuest(self._guest_image, lambda: self._address(vm_id), lambda: self._console(vm_id))

    def kill_management(self) -> None:
        self._management.kill()

    def start_management(self) -> None:
        self._management.start()

    def name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}-{self._unique}-{self._names}"

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"check: {name}")
            raise

    def wait_until(self, what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {timeout:g} s")
            time.sleep(POLL_SECONDS)

    def _address(self, vm_id: str) -> str:
        return str(self._vm(vm_id)["nic"][0]["ipaddress"])

    def _console(self, vm_id: str) -> str:
        vm = self._vm(vm_id)
        return next((host.console(vm["instancename"]) for host in self._hosts if host.name == vm.get("hostname")), "")

    def _vm(self, vm_id: str) -> Json:
        answer = self._cloud.call("listVirtualMachines", id=vm_id, listall=True)
        vm: Json = answer["virtualmachine"][0]
        return vm
