"""Target: where something goes and in which form, as the user names it.

Law: decides by the text alone; writes nothing and imports little, since `ocibuild rootfs` has little time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.registry.reference import Reference
from rootfs.errors import UsageError

Form = Literal["oci", "oci-archive", "docker-archive", "tar", "tar.gz", "tar.zst", "bundle", "dir"]

_TAR = re.compile(r"\.tar(?P<compression>\.gz|\.zst)?\Z|\.(?P<short>tgz|tzst)\Z")
_ARCHIVES: tuple[Form, ...] = ("oci-archive", "docker-archive")
_NAMED: tuple[Form, ...] = ("oci", *_ARCHIVES)
_BARE: tuple[Form, ...] = ("bundle", "dir")
_FORMS = "oci:, oci-archive:, docker-archive:, tar:, bundle: or dir:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A target. `tag` names the image in a layout or an archive of one; `name`, `NAME:TAG`, is Docker's for it."""

    form: Form
    path: Path
    tag: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str, *, plain: Form = "oci") -> Place:
        """Read `FORM:PATH[:TAG]`, or a path whose end says the form; of a path that does not, `plain` is the form.

        `oci:PATH[:TAG]`, `oci-archive:FILE[:TAG]` (also `FILE.oci.tar`), `docker-archive:FILE[:NAME:TAG]`,
        `tar:FILE` (also `FILE.tar`, `.tar.gz`, `.tar.zst`), `bundle:DIR`, `dir:DIR`. UsageError for anything else.
        """
        form, colon, rest = text.partition(":")
        if colon and form in (*_NAMED, *_BARE, "tar"):
            return _parse(form, rest, text)
        path = text.partition(":")[0]
        if path.endswith(".oci.tar"):
            return _parse("oci-archive", text, text)
        if _TAR.search(text):
            return _parse("tar", text, text)
        if plain == "oci" and _is_reference(text):
            hint = f"for a directory write ./{path}, for a registry say --push"
            raise UsageError(f"this names a registry: {text}", hint=hint)
        return _parse(plain, text, text)

    def __str__(self) -> str:
        shown = self.name if self.form == "docker-archive" else self.tag
        return f"{self.path}:{shown}" if shown else str(self.path)


def _parse(form: str, rest: str, text: str) -> Place:
    """The place of a form; the path ends at the first colon where a name may follow."""
    path, _, name = rest.partition(":") if form in _NAMED else (rest, "", "")
    if not path or "\0" in path:
        raise UsageError(f"no path in {text!r}", hint=f"write a path after {_FORMS}")
    compressed = _TAR.search(path)
    compression = (compressed["compression"] or compressed["short"]) if compressed else None
    match form:
        case "tar":
            ending = {"tgz": ".gz", "tzst": ".zst"}.get(compression or "", compression or "")
            known: dict[str, Form] = {"": "tar", ".gz": "tar.gz", ".zst": "tar.zst"}
            return Place(form=known[ending], path=Path(path))
        case "oci-archive" | "docker-archive" if compression:
            hint = "name it .tar: its layers are compressed already"
            raise UsageError("an archive of an image is not compressed", at=path, hint=hint)
        case "docker-archive":
            return Place(form="docker-archive", path=Path(path), name=name)
        case "oci" | "oci-archive":
            return Place(form=form, path=Path(path), tag=name)
        case "bundle" | "dir":
            return Place(form=form, path=Path(path))
        case _:
            raise UsageError(f"no such form: {form}", hint=f"write {_FORMS}")


def _is_reference(text: str) -> bool:
    try:
        Reference.parse(text)
    except UsageError:
        return False
    return True
