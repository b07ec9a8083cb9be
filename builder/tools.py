"""Tools: the ports and what else running a build takes, as one value handed down by the command line.

Law: a value; whoever has it may use every port, so only the modules that drive a build take it (resolve, execute, app).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from builder.oci.descriptor import Descriptor
from rootfs.ports import Reporter, Sandbox, Store, Transport

if TYPE_CHECKING:
    from builder.plan import Step  # all that makes a build: what only pushes does without


class StepCache(Protocol):
    """Results of steps outside of this machine, by key."""

    def take(self, step: Step) -> bool:
        """Have a step's result in the store, with all it refers to, if it is kept; whether it was."""

    def offer(self, step: Step) -> None:
        """The result of this step is in the store, whole: it may be kept."""


class PushAhead(Protocol):
    """Who is told of an image's layers before there is an image; `builder.registry.ahead`."""

    def begins(self) -> None:
        """There is work to do: what would make it useless is to be known now."""

    def packed(self, layers: Sequence[Descriptor]) -> None:
        """These layers are in the store, whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Ports; mirrors (base URL by archive); a directory to work in; how many things to do at once; results that are
    kept elsewhere; where layers go before the image.
    """

    store: Store
    transport: Transport
    sandbox: Sandbox
    reporter: Reporter
    mirrors: Mapping[str, str]
    work: Path
    jobs: int
    cache: StepCache | None = None
    ahead: PushAhead | None = None
