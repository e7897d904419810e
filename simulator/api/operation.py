"""One operation of the API: the single source for routing, validation, documentation and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulator.cluster.plan import Handler
from simulator.ports import Verb

FlowMaker = Callable[..., object]
"""Returns a `simulator.multicluster.flow.Flow`, whose module knows this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    method: str
    """Name in the vendor's bindings."""
    verb: Verb
    path: str
    """Template behind `/ctrl/1.0/`; `{...}` are keys of `scalars.PATH_ARGUMENTS`."""
    multicluster: bool = False
    """Whether the bindings add the MultiCluster prefix; it is accepted on every call."""
    handler: Handler | None = None
    flow: FlowMaker | None = None
    """In place of a handler: given a `simulator.multicluster.flow.Here`, and the body, what the call consists of."""
    request: object = None
    """Type of the JSON; None when only `{}` may be sent."""
    optional: bool = False
    """The JSON may be left out."""
    answer: object = None
    """Type of `data`."""
    errors: tuple[str, ...] = ()
    """Error names of its own; any call may answer accessDenied, invalidParam, internalError and unavailable."""
    capacity: bool = False
    """Wants to know how full the pool is."""
    stored: bool = False
    """Wants to know what each object holds."""

    @property
    def served(self) -> bool:
        """Otherwise it is only declared, and answers `notImplemented`."""
        return self.handler is not None or self.flow is not None

    @property
    def call(self) -> str:
        """The fixed words of the path, by which served calls are counted."""
        return self.path.partition("/{")[0]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(word[1:-1] for word in self.path.split("/") if word.startswith("{"))


def get(
    method: str,
    path: str,
    *,
    multicluster: bool = False,
    handler: Handler | None = None,
    flow: FlowMaker | None = None,
    request: object = None,
    answer: object = None,
    errors: tuple[str, ...] = (),
    capacity: bool = False,
    stored: bool = False,
) -> Operation:
    """A query; its JSON may be left out."""
    return Operation(
        method=method,
        verb=Verb.GET,
        path=path,
        multicluster=multicluster,
        handler=handler,
        flow=flow,
        request=request,
        optional=True,
        answer=answer,
        errors=errors,
        capacity=capacity,
        stored=stored,
    )


def post(
    method: str,
    path: str,
    *,
    multicluster: bool = False,
    handler: Handler | None = None,
    flow: FlowMaker | None = None,
    request: object = None,
    optional: bool = False,
    answer: object = None,
    errors: tuple[str, ...] = (),
    capacity: bool = False,
) -> Operation:
    return Operation(
        method=method,
        verb=Verb.POST,
        path=path,
        multicluster=multicluster,
        handler=handler,
        flow=flow,
        request=request,
        optional=optional,
        answer=answer,
        errors=errors,
        capacity=capacity,
    )
