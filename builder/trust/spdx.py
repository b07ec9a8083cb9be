"""SPDX: Contents -> an SPDX 2.3 document in JSON, by the SPDX project's own library.

Law: says of an image nothing but its Contents. Nothing depends on the clock or on chance: the document's time is the
image's, its namespace follows from what it says. Sources: SPDX 2.3 (packages, files, relationships), purl-spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from spdx_tools.common.spdx_licensing import spdx_licensing
from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
from spdx_tools.spdx.model.actor import Actor, ActorType
from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
from spdx_tools.spdx.model.document import CreationInfo, Document
from spdx_tools.spdx.model.extracted_licensing_info import ExtractedLicensingInfo
from spdx_tools.spdx.model.file import File
from spdx_tools.spdx.model.package import ExternalPackageRef, ExternalPackageRefCategory, Package, PackagePurpose
from spdx_tools.spdx.model.relationship import Relationship, RelationshipType
from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion
from spdx_tools.spdx.spdx_element_utils import calculate_package_verification_code

from builder.trust.contents import Component, Contents, Licence, Origin
from builder.trust.identity import identifier, urn
from builder.version import VERSION
from rootfs.digest import canonical_json

MEDIA_TYPE = "application/spdx+json"

_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-Image"
_PURPOSE = {
    "deb": PackagePurpose.LIBRARY,
    "pypi": PackagePurpose.LIBRARY,
    "cpython": PackagePurpose.APPLICATION,
}
_URL = re.compile(r"https?://[^\s]+\Z")


def spdx(contents: Contents) -> bytes:
    """The document, as canonical JSON; equal contents give equal bytes."""
    writing = _Writing(contents)
    document = Document(
        creation_info=CreationInfo(
            spdx_version="SPDX-2.3",
            spdx_id=_DOCUMENT,
            name=contents.name,
            document_namespace=urn(MEDIA_TYPE, VERSION, contents.own),
            creators=[Actor(ActorType.TOOL, f"ocibuild-{VERSION}")],
            created=datetime.fromtimestamp(contents.created, UTC).replace(tzinfo=None),
        ),
        packages=list(writing.packages()),
        files=list(writing.files()),
        relationships=list(writing.relationships()),
        extracted_licensing_info=list(writing.licences()),
    )
    converter = DocumentConverter()  # type: ignore[no-untyped-call]
    return canonical_json(converter.convert(document))


class _Writing:
    """What SPDX says of Contents; elements in the order of their identifiers' sources, purls and paths."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._ids = {one.purl: f"SPDXRef-{identifier(one.kind, one.name, one.purl)}" for one in contents.components}
        self._files: dict[str, list[File]] = {}
        for number, file in enumerate(contents.files or (), 1):
            checksums = [
                Checksum(ChecksumAlgorithm.SHA1, file.sha1),
                Checksum(ChecksumAlgorithm.SHA256, file.sha256),
            ]
            one = File(f"./{file.path}", f"SPDXRef-File-{number}", checksums, copyright_text=SpdxNoAssertion())
            self._files.setdefault(file.owner, []).append(one)

    def packages(self) -> Iterator[Package]:
        """The image, its components, and what these were made from."""
        contents = self._contents
        yield Package(
            _IMAGE,
            contents.name,
            SpdxNoAssertion(),
            version=str(contents.digest),
            checksums=[Checksum(ChecksumAlgorithm.SHA256, contents.digest.hex)]
            if contents.digest.algorithm == "sha256"
            else [],
            external_references=[_reference(contents.purl)],
            primary_package_purpose=PackagePurpose.CONTAINER,
            **_NOT_SAID,
            **self._analysed(""),
        )
        for one in contents.components:
            yield self._package(one)
        for spdx_id, origin in sorted(self._sources().items()):
            yield Package(
                spdx_id,
                origin.name,
                _location(origin),
                version=origin.version,
                checksums=_checksums(origin),
                external_references=[_reference(origin.purl)],
                primary_package_purpose=PackagePurpose.SOURCE,
                files_analyzed=False,
                **_NOT_SAID,
            )

    def _package(self, one: Component) -> Package:
        references = [_reference(one.purl)]
        if one.cpe:
            references.append(ExternalPackageRef(ExternalPackageRefCategory.SECURITY, "cpe23Type", one.cpe))
        return Package(
            self._ids[one.purl],
            one.name,
            _location(one.stored),
            version=one.version,
            supplier=_supplier(one),
            checksums=_checksums(one.stored),
            homepage=one.homepage if _URL.match(one.homepage) else None,
            source_info=None if one.source is None else f"built from: {one.source.name} {one.source.version}",
            license_concluded=SpdxNoAssertion(),
            license_declared=_expression(one.licence),
            copyright_text=SpdxNoAssertion(),
            summary=one.summary or None,
            external_references=references,
            primary_package_purpose=_PURPOSE[one.kind],
            **self._analysed(one.purl),
        )

    def _analysed(self, owner: str) -> dict[str, Any]:
        """Whether the files of a package are in the document, and the code that follows from them (clause 7.9)."""
        files = self._files.get(owner)
        if not files:
            return {"files_analyzed": False}
        return {"files_analyzed": True, "verification_code": calculate_package_verification_code(files)}

    def _sources(self) -> dict[str, Origin]:
        """Source packages and tarballs by their identifier."""
        known = (one.source for one in self._contents.components if one.source is not None)
        return {_source_id(origin): origin for origin in known}

    def files(self) -> Iterator[File]:
        """Every file, of no package first."""
        for owner in sorted(self._files):
            yield from self._files[owner]

    def relationships(self) -> Iterator[Relationship]:
        """The document describes the image; the image contains components, these files; sources and dependencies."""
        kind = RelationshipType
        yield Relationship(_DOCUMENT, kind.DESCRIBES, _IMAGE)
        for one in self._contents.components:
            own = self._ids[one.purl]
            yield Relationship(_IMAGE, kind.CONTAINS, own)
            if one.source is not None:
                yield Relationship(own, kind.GENERATED_FROM, _source_id(one.source))
            for purl in one.depends:
                yield Relationship(own, kind.DEPENDS_ON, self._ids[purl])
        for owner in sorted(self._files):
            for file in self._files[owner]:
                yield Relationship(self._ids.get(owner, _IMAGE), kind.CONTAINS, file.spdx_id)

    def licences(self) -> Iterator[ExtractedLicensingInfo]:
        """The texts of licences without an SPDX identifier."""
        known = (one.licence.texts for one in self._contents.components if one.licence is not None)
        for name, text in sorted({text for texts in known for text in texts}):
            yield ExtractedLicensingInfo(name, text, license_name=SpdxNoAssertion())


_NOT_SAID: dict[str, Any] = {
    "license_concluded": SpdxNoAssertion(),
    "license_declared": SpdxNoAssertion(),
    "copyright_text": SpdxNoAssertion(),
}


def _source_id(origin: Origin) -> str:
    return f"SPDXRef-{identifier('source', origin.name, origin.purl)}"


def _reference(purl: str) -> ExternalPackageRef:
    return ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", purl)


def _location(origin: Origin | None) -> str | SpdxNoAssertion:
    return origin.url if origin is not None and _URL.match(origin.url) else SpdxNoAssertion()


def _checksums(origin: Origin | None) -> list[Checksum]:
    if origin is None or origin.digest is None:
        return []
    return [Checksum(ChecksumAlgorithm[origin.digest.algorithm.upper()], origin.digest.hex)]


def _expression(licence: Licence | None) -> Any:
    return SpdxNoAssertion() if licence is None else spdx_licensing.parse(licence.expression)


def _supplier(one: Component) -> Actor | SpdxNoAssertion:
    """An organization with its address, as dpkg's Maintainer names one."""
    name, _, address = one.supplier.partition("<")
    if not name.strip():
        return SpdxNoAssertion()
    return Actor(ActorType.ORGANIZATION, name.strip(), address.rstrip("> ") or None)
