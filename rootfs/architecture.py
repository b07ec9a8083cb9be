"""Architecture: one table from Debian's names to OCI platforms and GNU triplets.

Law: data and look-ups only. Sources: `dpkg-architecture -L`, image-spec config.md (GOARCH, GOARM).
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from rootfs.errors import HostError, RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One machine type: Debian's name, the OCI platform, the GNU triplet, the dynamic loader's path."""

    debian: str
    oci: str
    variant: str | None
    triplet: str
    machine: str

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """From `amd64` (Debian and OCI alike) or `linux/amd64[/variant]`; RecipeError when unknown."""
        parts = text.removeprefix("linux/").split("/")
        for candidate in TABLE:
            named = parts[0] in (candidate.debian, candidate.oci)
            if named and parts[1:] in ([], [candidate.variant]):
                return candidate
        known = ", ".join(sorted(a.debian for a in TABLE))
        raise RecipeError(f"unknown architecture: {text}", hint=f"known: {known}")

    @classmethod
    def host(cls) -> Architecture:
        """The architecture of this machine; HostError when it has no Debian port in the table."""
        for candidate in TABLE:
            if candidate.machine == platform.machine():
                return candidate
        raise HostError(f"no Debian architecture for this machine: {platform.machine()}")


TABLE = (
    Architecture(debian="amd64", oci="amd64", variant=None, triplet="x86_64-linux-gnu", machine="x86_64"),
    Architecture(debian="arm64", oci="arm64", variant="v8", triplet="aarch64-linux-gnu", machine="aarch64"),
    Architecture(debian="armhf", oci="arm", variant="v7", triplet="arm-linux-gnueabihf", machine="armv7l"),
    Architecture(debian="ppc64el", oci="ppc64le", variant=None, triplet="powerpc64le-linux-gnu", machine="ppc64le"),
    Architecture(debian="riscv64", oci="riscv64", variant=None, triplet="riscv64-linux-gnu", machine="riscv64"),
    Architecture(debian="s390x", oci="s390x", variant=None, triplet="s390x-linux-gnu", machine="s390x"),
)
