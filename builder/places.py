"""Places: where an image goes, and in which form, as the user names it.

Law: decides by the text alone; the forms are written by the modules of `builder.oci`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builder.oci.descriptor import Descriptor
from builder.oci.layout import write_layout
from rootfs.errors import UsageError
from rootfs.ports import Reporter, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A target: `form` is `oci`, an image layout; `tag` names the image in it, "" for none."""

    form: str
    path: Path
    tag: str = ""

    @classmethod
    def parse(cls, text: str) -> Place:
        """`oci:PATH[:TAG]` or `PATH[:TAG]`; UsageError for anything else."""
        path, _, tag = text.removeprefix("oci:").partition(":")
        if not path:
            raise UsageError(f"no path in {text!r}", hint="write oci:PATH or oci:PATH:TAG")
        return cls(form="oci", path=Path(path), tag=tag)

    def __str__(self) -> str:
        return f"{self.path}:{self.tag}" if self.tag else str(self.path)


def write_place(place: Place, store: Store, descriptor: Descriptor, *, reporter: Reporter) -> None:
    """Write an image (or index) of the store, with all it refers to, to its place, whole or not at all."""
    write_layout(place.path, store, descriptor, ref_name=place.tag or "latest")
