"""Target: where something goes and in which form, as the user names it.

Law: decides by the text, and where that may be a repository, too, by whether the directory is there; writes nothing
and imports little, since `ocibuild rootfs` has little time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.registry.reference import SCHEME, Reference, refuse_account
from rootfs.errors import UsageError
from rootfs.files import STDOUT

Form = Literal["oci", "oci-archive", "docker-archive", "tar", "tar.gz", "tar.zst", "bundle", "dir"]

_TAR = re.compile(r"\.tar(?P<compression>\.gz|\.zst)?\Z|\.(?P<short>tgz|tzst)\Z")
_PORT = re.compile(r"[^/:]+:[0-9]{1,5}/")
_ARCHIVES: tuple[Form, ...] = ("oci-archive", "docker-archive")
_NAMED: tuple[Form, ...] = ("oci", *_ARCHIVES)
_BARE: tuple[Form, ...] = ("bundle", "dir")
_NOT_WRITTEN = ("docker-daemon:", "containers-storage:")
_STDOUT: tuple[Form, ...] = (*_ARCHIVES, "tar")
_OTHER_ARCHIVES = (".tar.xz", ".tar.bz2", ".tar.lz4", ".txz", ".tbz2", ".zip", ".squashfs")
_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)+\Z")
_UNCLEAR = "there is no such directory yet, and other tools take this for a repository of a default registry"
_FORMS = "oci:, oci-archive:, docker-archive:, tar:, bundle: or dir:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A target. `tag` names the image in a layout or an archive of one; `name`, `NAME:TAG`, is Docker's for it.

    `path` is `rootfs.files.STDOUT` where an archive goes to stdout.
    """

    form: Form
    path: Path
    tag: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str, *, plain: Form = "oci", elsewhere: str = "say --push") -> Place:
        """Read `FORM:PATH[:TAG]`, or a path whose end says the form; of a path that does not, `plain` is the form.
        `elsewhere` is what to do for a registry.

        `oci:PATH[:TAG]`, `oci-archive:FILE[:TAG]` (also `FILE.oci.tar`), `docker-archive:FILE[:NAME:TAG]`,
        `tar:FILE` (also `FILE.tar`, `.tar.gz`, `.tar.zst`), `bundle:DIR`, `dir:DIR`; `-` is stdout for a FILE, and by
        itself, where a directory of files is plain, for their tar. UsageError for anything else, and for a bad name.
        """
        form, colon, rest = text.partition(":")
        if colon and form in (*_NAMED, *_BARE, "tar"):
            return _parse(form, rest, text)
        if text == "-":
            if plain == "dir":
                return _parse("tar", text, text)
            raise UsageError("what goes to stdout has a form", hint="write docker-archive:-, oci-archive:- or tar:-")
        if text.startswith(_NOT_WRITTEN):
            raise UsageError(f"{text} is not written to", hint=f"write a path after {_FORMS}")
        path = text.partition(":")[0]
        if path.endswith(_OTHER_ARCHIVES):
            raise UsageError(f"not written as such an archive: {path}", hint="name it .tar, .tar.gz or .tar.zst")
        if path.endswith(".oci.tar"):
            return _parse("oci-archive", text, text)
        if _TAR.search(text):
            return _parse("tar", text, text)
        _refuse_registry(text, elsewhere, maybe=plain == "oci")
        return _parse(plain, text, text)

    def __str__(self) -> str:
        shown = self.name if self.form == "docker-archive" else self.tag
        path = "-" if self.path == STDOUT else self.path
        return f"{path}:{shown}" if shown else str(path)


def _parse(form: str, rest: str, text: str) -> Place:
    """The place of a form; the path ends at the first colon where a name may follow."""
    path, _, name = rest.partition(":") if form in _NAMED else (rest, "", "")
    if not path or "\0" in path:
        raise UsageError(f"no path in {text!r}", hint=f"write a path after {_FORMS}")
    if path == "-" and form not in _STDOUT:
        hint = f"it is a directory: for one of this name write {form}:./-"
        raise UsageError(f"{form}: is not written to stdout", hint=hint)
    where = STDOUT if path == "-" else Path(path)
    compressed = _TAR.search(path)
    compression = (compressed["compression"] or compressed["short"]) if compressed else None
    match form:
        case "tar":
            ending = {"tgz": ".gz", "tzst": ".zst"}.get(compression or "", compression or "")
            known: dict[str, Form] = {"": "tar", ".gz": "tar.gz", ".zst": "tar.zst"}
            return Place(form=known[ending], path=where)
        case "oci-archive" | "docker-archive" if compression:
            hint = "name it .tar: its layers are compressed already"
            raise UsageError("an archive of an image is not compressed", at=path, hint=hint)
        case "docker-archive":
            return Place(form="docker-archive", path=where, name=_checked(name, docker=True))
        case "oci" | "oci-archive":
            return Place(form=form, path=where, tag=_checked(name))
        case "bundle" | "dir":
            return Place(form=form, path=where)
        case _:
            raise UsageError(f"no such form: {form}", hint=f"write {_FORMS}")


def _checked(name: str, *, docker: bool = False) -> str:
    """The name, if it may be one, so that a bad one is found before any work."""
    if name and docker:
        from builder.oci.dockerarchive import ImageName  # noqa: PLC0415 (most targets have no name)

        ImageName.parse(name)
    elif name:
        from builder.oci.layout import check_name  # noqa: PLC0415

        check_name(name)
    return name


def _refuse_registry(text: str, elsewhere: str, *, maybe: bool) -> None:
    """UsageError for what names a registry, or `maybe` does."""
    refuse_account(text)
    if text.startswith(SCHEME):
        hint = f"{elsewhere}, or write oci:PATH and `ocibuild push` that"
        raise UsageError(f"this names a registry: {text}", hint=hint)
    if maybe and _is_reference(text):
        hint = f"for a directory write ./{text.partition(':')[0]}, for a registry {elsewhere}"
        raise UsageError(f"this names a registry: {text}", hint=hint)
    if maybe and _may_be_a_repository(text):
        hint = f"for a directory write oci:{text}, for a registry its host first, as in registry.example.org/{text}"
        raise UsageError(f"a directory, or a repository? {text}", because=_UNCLEAR, hint=hint)


def _may_be_a_repository(text: str) -> bool:
    """Whether other tools would push to this: `name/name:tag` of which no part is there as a directory."""
    path, colon, tag = text.rpartition(":")
    return bool(colon and _REPOSITORY.match(path) and tag) and not Path(path.partition("/")[0]).is_dir()


def _is_reference(text: str) -> bool:
    """Whether a registry is meant; a port or a digest says so, even if the rest is mistyped."""
    if _PORT.match(text) or "@sha256:" in text:
        return True
    try:
        Reference.parse(text)
    except UsageError:
        return False
    return True
