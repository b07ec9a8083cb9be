"""Tools: the ports and what else running a build takes, as one value handed down by the command line.

Law: a value; whoever has it may use every port, so only the modules that drive a build take it (resolve, execute, app).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rootfs.ports import Reporter, Sandbox, Store, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Ports; mirrors (base URL by archive); a directory to work in; how many things to do at once."""

    store: Store
    transport: Transport
    sandbox: Sandbox
    reporter: Reporter
    mirrors: Mapping[str, str]
    work: Path
    jobs: int
