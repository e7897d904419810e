"""What the HTTP layer has beside the API itself: the log of calls, the page, and where it is asked for, the control API
with its faults."""

from __future__ import annotations

from simulator.api.desk import Desk
from simulator.api.faults import Faults
from simulator.api.log import Log
from simulator.api.server import Application
from simulator.page.site import Site
from simulator.service import Service


def equip(application: Application, service: Service, token: str, *, control: bool, backend: str | None) -> None:
    """`backend` is the kind of pool behind loop devices, None without devices."""
    log = application.log = Log(service.settings, lambda: service.time, token)
    faults = None
    if control:
        faults = application.faults = Faults(service.settings, token)
        application.desk = Desk(faults, log, token, lambda: service.generation)
    application.page = Site(service, log, faults, token, backend)
