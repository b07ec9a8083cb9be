"""CycloneDX: Contents -> a CycloneDX 1.6 BOM in JSON, by the CycloneDX project's own library.

Law: says of an image nothing but its Contents. Nothing depends on the clock or on chance: the BOM's time is the
image's, its serial number follows from what it says. Sources: CycloneDX 1.6 (ECMA-424), purl-spec.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component as Entry
from cyclonedx.model.component import ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import LicenseExpression
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from builder.trust.contents import Component, Contents, File, Origin
from builder.trust.identity import unique
from builder.version import VERSION
from rootfs.digest import canonical_json

MEDIA_TYPE = "application/vnd.cyclonedx+json"

_TYPES = {
    "deb": ComponentType.LIBRARY,
    "pypi": ComponentType.LIBRARY,
    "cpython": ComponentType.APPLICATION,
}


def cyclonedx(contents: Contents) -> bytes:
    """The BOM, as canonical JSON; equal contents give equal bytes."""
    files: dict[str, list[File]] = {}
    for file in contents.files or ():
        files.setdefault(file.owner, []).append(file)
    image = Entry(
        type=ComponentType.CONTAINER,
        name=contents.name,
        version=str(contents.digest),
        bom_ref=contents.purl,
        purl=PackageURL.from_string(contents.purl),
    )
    entries = {one.purl: _entry(one, files.get(one.purl, ())) for one in contents.components}
    bom = Bom(
        serial_number=unique(MEDIA_TYPE, VERSION, contents.own),
        components=[*entries.values(), *_files(files.get("", ()))],
        metadata=BomMetaData(
            timestamp=datetime.fromtimestamp(contents.created, UTC),
            component=image,
            tools=ToolRepository(
                components=[Entry(type=ComponentType.APPLICATION, name="ocibuild", version=VERSION)],
            ),
        ),
    )
    bom.register_dependency(image, entries.values())
    for one in contents.components:
        bom.register_dependency(entries[one.purl], [entries[purl] for purl in one.depends])
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    return canonical_json(json.loads(text))


def _entry(one: Component, files: Iterable[File]) -> Entry:
    source = one.source
    said = () if source is None else (Property(name="ocibuild:source", value=f"{source.name} {source.version}"),)
    return Entry(
        type=_TYPES[one.kind],
        name=one.name,
        version=one.version,
        bom_ref=one.purl,
        purl=PackageURL.from_string(one.purl),
        cpe=one.cpe or None,
        description=one.summary or None,
        supplier=OrganizationalEntity(name=one.supplier) if one.supplier else None,
        licenses=[LicenseExpression(one.licence.expression)] if one.licence else None,
        external_references=list(_references(one)),
        properties=said,
        components=list(_files(files)),
    )


def _references(one: Component) -> Iterator[ExternalReference]:
    if one.homepage:
        yield ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(one.homepage))
    if one.stored is not None and one.stored.url:
        yield _download(ExternalReferenceType.DISTRIBUTION, one.stored)
    if one.source is not None and one.source.url:
        yield _download(ExternalReferenceType.SOURCE_DISTRIBUTION, one.source)


def _download(kind: ExternalReferenceType, origin: Origin) -> ExternalReference:
    hashes = [] if origin.digest is None else [HashType(alg=HashAlgorithm.SHA_256, content=origin.digest.hex)]
    return ExternalReference(type=kind, url=XsUri(origin.url), hashes=hashes)


def _files(files: Iterable[File]) -> Iterator[Entry]:
    for file in files:
        yield Entry(
            type=ComponentType.FILE,
            name=f"/{file.path}",
            bom_ref=f"file:/{file.path}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
        )
