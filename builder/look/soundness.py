"""Soundness: every finding about what a user calls IMAGE: the place it lies in, and all that it leads to there.

Law: reads and judges; changes nothing, and keeps nothing. An image layout is more than the image in it: its own index,
the names in that, and blobs that nothing leads to are looked at, too (image-spec 1.1, image-layout.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.finding import Connect, FoundImage, find_image
from builder.look.tables import shown
from builder.multi import chosen
from builder.oci.annotations import REF_NAME_FORM
from builder.oci.check import findings_of
from builder.oci.descriptor import REF_NAME, SIZE_LIMIT, Descriptor
from builder.oci.layout import read_layout
from builder.oci.manifest import parse
from builder.oci.mediatypes import DOCUMENTS
from builder.oci.walk import Finding
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError


@dataclass(frozen=True, slots=True, kw_only=True)
class Soundness:
    """What was found about one image."""

    name: str
    digest: Digest | None
    findings: tuple[Finding, ...]

    def fails(self, *, strict: bool) -> bool:
        """Whether there is an error; with `strict`, whether there is anything."""
        return any(strict or finding.severity == "error" for finding in self.findings)

    def to_value(self) -> dict[str, Any]:
        """The JSON value (docs/reference/check.md)."""
        findings = [{"severity": one.severity, "at": one.at, "text": one.text} for one in self.findings]
        return {"image": self.name, "digest": self.digest and str(self.digest), "findings": findings}

    def render(self) -> str:
        """A line for each finding, errors first, and one for all."""
        ordered = sorted(self.findings, key=lambda one: one.severity != "error")
        lines = [f"{one.severity}: {shown(str(one))}\n" for one in ordered]
        counted = Counter(one.severity for one in self.findings)
        name = shown(self.name) if self.digest is None else f"{shown(self.name)}@{self.digest}"
        return "".join([*lines, f"{name}: {counted['error']} errors, {counted['note']} notes\n"])


def soundness(text: str, *, connect: Connect | None = None, platform: str | None = None) -> Soundness:
    """Check an image, an index or an artifact, or, where a layout holds several and none is named, all of them; with
    `platform`, that one image of an index.

    UsageError when there is none; TransferError when a registry does not let it be read.
    """
    layout = Path(text.removeprefix("oci:"))
    if (layout / "oci-layout").is_file() and platform is None:
        return Soundness(name=str(layout), digest=None, findings=_unique(_layout(layout)))
    found = find_image(text, connect=connect)
    descriptor = found.descriptor if platform is None else chosen(found, platform).descriptor
    findings = _unique(findings_of(descriptor, lambda wanted: _fetched(wanted, found)))
    return Soundness(name=found.name, digest=descriptor.digest, findings=findings)


def _unique(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Several images of one place share blobs, and so findings."""
    return tuple(dict.fromkeys(findings))


def _fetched(wanted: Descriptor, found: FoundImage) -> Iterator[bytes]:
    """A blob or document; IntegrityError where the registry says that it has none: to refuse is not the same."""
    try:
        yield from found.fetch(wanted)
    except TransferError as error:
        registry = found.registry
        if registry is None:
            raise
        is_document = wanted.media_type in DOCUMENTS
        if registry.head_manifest(wanted.digest) if is_document else registry.exists(wanted):
            raise
        raise IntegrityError("the registry lacks it", at=f"{found.name}@{wanted.digest}") from error


def _layout(layout: Path) -> Iterator[Finding]:
    """Findings about a layout: its index, all that this leads to, and what it leads to nothing of."""
    at = str(layout / "index.json")
    try:
        manifests = read_layout(layout).manifests
    except IntegrityError as error:
        yield Finding(severity="error", at=at, text=": ".join(filter(None, (error.message, error.because))))
        return
    names = Counter(one.annotations.get(REF_NAME) for one in manifests)
    for name, count in names.items():
        if name is not None and count > 1:
            yield Finding(severity="error", at=at, text=f"has the name {name!r} {count} times")
        elif name is not None and not REF_NAME_FORM.match(name):
            yield Finding(severity="note", at=at, text=f"has a name of a form of its own: {name!r}")
    if not manifests:
        yield Finding(severity="note", at=at, text="holds nothing")
    known: set[Digest] = set()
    for descriptor in manifests:
        found = find_image(f"oci:{layout}@{descriptor.digest}")
        yield from findings_of(descriptor, found.fetch)
        _reach(descriptor, found, known)
    yield from _unreached(layout, known)


def _reach(descriptor: Descriptor, found: FoundImage, known: set[Digest]) -> None:
    """Add the digests that a descriptor leads to, as far as its documents can be read; each of these is read once."""
    if descriptor.digest in known:
        return
    known.add(descriptor.digest)
    if descriptor.media_type in DOCUMENTS and descriptor.size <= SIZE_LIMIT:
        with suppress(IntegrityError):
            for child in parse(descriptor.media_type, b"".join(found.fetch(descriptor))).children:
                _reach(child, found, known)


def _unreached(layout: Path, known: set[Digest]) -> Iterator[Finding]:
    """Files below blobs/ that are no blob, or that nothing leads to."""
    loose = []
    for path in sorted((layout / "blobs").glob("*/*")):
        try:
            digest = Digest(path.parent.name, path.name)
        except IntegrityError:
            yield Finding(severity="note", at=str(path), text="is no blob")
            continue
        if digest not in known:
            loose.append(digest)
    if loose:
        more = f" and {len(loose) - 1:,} more" if len(loose) > 1 else ""
        yield Finding(severity="note", at=str(layout), text=f"holds a blob that nothing leads to: {loose[0]}{more}")
