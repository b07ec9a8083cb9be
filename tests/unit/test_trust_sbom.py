"""SBOMs of a small image, read back by the formats' own libraries and validated by them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from builder.lock import Lock, LockedPackage, LockedSource
from builder.python.register import Registration, registered
from builder.trust.cyclonedx import cyclonedx
from builder.trust.spdx import spdx
from builder.trust.survey import Surveyed, survey
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, LockError
from rootfs.tree import Tree, file, symlink
from tests.fakes.store import MemoryStore

STATUS = b"""\
Package: libssl3t64
Status: install ok installed
Maintainer: OpenSSL Team <openssl@example.org>
Architecture: amd64
Multi-Arch: same
Source: openssl
Version: 3.5.7-1
Depends: libc6 (>= 2.38)
Description: Secure Sockets Layer
 More of it.
Homepage: https://www.openssl.org/

Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.41-12)
Version: 2.41-12+b1
Provides: libc (= 2.41)

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""
COPYRIGHT = b"""\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: Apache-2.0 and odd

License: odd
 Whatever.
"""
METADATA = (
    b"Metadata-Version: 2.4\nName: Odd.Name\nVersion: 1.0\nLicense-Expression: MIT\nSummary: It is odd\n\nLong.\n"
)
SITE = "usr/local/lib/python3.14/site-packages"
OS_RELEASE = b'PRETTY_NAME="Debian"\nVERSION_CODENAME=trixie\nID=debian\n'
BASE = Tree(
    [
        symlink("etc/os-release", "../usr/lib/os-release"),
        file("usr/lib/os-release", OS_RELEASE),
        file("var/lib/dpkg/status", STATUS),
        file("var/lib/dpkg/info/libssl3t64:amd64.list", b"/.\n/usr/lib/libssl.so.3\n"),
        file("usr/lib/libssl.so.3", b"ssl"),
        symlink("usr/share/doc/libssl3t64", "openssl"),
        file("usr/share/doc/openssl/copyright", COPYRIGHT),
        file("srv/b\udcff", b"mine"),
    ]
)
PYTHON = Tree([file("usr/local/lib/python3.14/os.py", b"os"), file("usr/local/bin/python3.14", b"elf")])
PIP = Tree(
    [
        file(f"{SITE}/odd_name-1.0.dist-info/METADATA", METADATA),
        file(f"{SITE}/odd_name-1.0.dist-info/RECORD", b"odd/__init__.py,,\n../../../bin/odd,,\n"),
        file(f"{SITE}/odd/__init__.py", b""),
        file("usr/local/bin/odd", b"#!"),
    ]
)
SAID = Registration(version="3.14.7", variant="plain", architecture="amd64", depends=("libssl3t64",))
LIBSSL = "pkg:deb/debian/libssl3t64@3.5.7-1?arch=amd64&distro=trixie&upstream=openssl"
LIBC = "pkg:deb/debian/libc6@2.41-12%2Bb1?arch=amd64&distro=trixie&upstream=glibc%402.41-12"
CPYTHON = "pkg:generic/cpython@3.14.7"
ODD = "pkg:pypi/odd-name@1.0"


def image_of(*trees: Tree) -> Surveyed:
    """Trees, one upon the other."""
    tree = Tree([entry for one in trees for entry in one.values()]).with_parents()
    return Surveyed(
        name="wee",
        digest=Digest.of(b"manifest"),
        created=1_789_199_741,
        architecture="amd64",
        environment={},
        tree=tree,
    )


WHOLE = image_of(BASE, registered(PYTHON, BASE, SAID, MemoryStore()), PIP)


def lock_of(names: Sequence[tuple[str, str]]) -> Lock:
    """A lock with CPython's source and these packages."""
    source = LockedSource(
        name="cpython", version="3.14.7", urls=("https://www.python.org/x.tar.xz",), size=1, sha256="a" * 64
    )
    packages = tuple(
        LockedPackage(
            name=name,
            version=version,
            architecture="amd64",
            sets=("runtime",),
            url=f"https://user:secret@ftp.example.org/{name}.deb",
            size=1,
            sha256="b" * 64,
        )
        for name, version in names
    )
    return Lock(schema=1, recipe="r", platform="linux/amd64", epoch=0, release=(), source=(source,), package=packages)


LOCK = lock_of([("libc6", "2.41-12+b1"), ("libssl3t64", "3.5.7-1")])


def spdx_of(image: Surveyed, **how: Any) -> dict[str, Any]:
    """An SPDX document, found valid by its own library."""
    value: dict[str, Any] = json.loads(spdx(survey(image, MemoryStore(), **how)))
    messages = validate_full_spdx_document(JsonLikeDictParser().parse(value))
    assert not messages, [message.validation_message for message in messages]
    return value


def cyclonedx_of(image: Surveyed, **how: Any) -> dict[str, Any]:
    """A CycloneDX BOM, found valid by its own schema."""
    data = cyclonedx(survey(image, MemoryStore(), **how))
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())
    assert fault is None, fault
    value: dict[str, Any] = json.loads(data)
    return value


def purls(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """purl -> package, of an SPDX document."""
    return {
        reference["referenceLocator"]: package
        for package in document["packages"]
        for reference in package.get("externalRefs", ())
        if reference["referenceType"] == "purl"
    }


def test_spdx_names_what_is_there_and_where_it_came_from() -> None:
    document = spdx_of(WHOLE, lock=LOCK)
    found = purls(document)
    sources = {purl for purl in found if "arch=source" in purl}
    assert sources == {
        "pkg:deb/debian/glibc@2.41-12?arch=source&distro=trixie",
        "pkg:deb/debian/openssl@3.5.7-1?arch=source&distro=trixie",
    }
    image = next(purl for purl in found if purl.startswith("pkg:oci/wee@sha256"))
    assert found.keys() - sources == {image, LIBSSL, LIBC, CPYTHON, ODD}
    assert found[LIBSSL]["downloadLocation"] == "https://ftp.example.org/libssl3t64.deb"
    assert found[LIBSSL]["checksums"] == [{"algorithm": "SHA256", "checksumValue": "b" * 64}]
    assert found[LIBSSL]["licenseDeclared"] == "Apache-2.0 AND LicenseRef-openssl-odd"
    assert found[LIBSSL]["supplier"] == "Organization: OpenSSL Team (openssl@example.org)"
    assert found[LIBC]["licenseDeclared"] == "NOASSERTION"
    assert found[ODD]["licenseDeclared"] == "MIT"
    assert document["hasExtractedLicensingInfos"] == [
        {"extractedText": "Whatever.", "licenseId": "LicenseRef-openssl-odd", "name": "NOASSERTION"}
    ]
    assert document["creationInfo"]["created"] == "2026-09-12T07:55:41Z"


def test_spdx_relates_them() -> None:
    document = spdx_of(WHOLE, lock=LOCK)
    names = {package["SPDXID"]: package["name"] for package in document["packages"]}
    names["SPDXRef-DOCUMENT"] = "document"
    told = {
        (names[one["spdxElementId"]], one["relationshipType"], names[one["relatedSpdxElement"]])
        for one in document["relationships"]
    }
    assert told == {
        ("document", "DESCRIBES", "wee"),
        *(("wee", "CONTAINS", name) for name in ("libssl3t64", "libc6", "cpython", "Odd.Name")),
        ("libssl3t64", "GENERATED_FROM", "openssl"),
        ("libc6", "GENERATED_FROM", "glibc"),
        ("cpython", "GENERATED_FROM", "cpython"),
        ("libssl3t64", "DEPENDS_ON", "libc6"),
        ("cpython", "DEPENDS_ON", "libssl3t64"),
    }


def test_cpython_has_the_name_that_scanners_look_for() -> None:
    package = purls(spdx_of(WHOLE))[CPYTHON]
    assert {one["referenceLocator"] for one in package["externalRefs"]} == {
        CPYTHON,
        "cpe:2.3:a:python:python:3.14.7:*:*:*:*:*:*:*",
    }
    one = next(one for one in cyclonedx_of(WHOLE, lock=LOCK)["components"] if one["name"] == "cpython")
    assert one["cpe"] == "cpe:2.3:a:python:python:3.14.7:*:*:*:*:*:*:*"
    source = next(reference for reference in one["externalReferences"] if reference["type"] == "source-distribution")
    assert source["url"] == "https://www.python.org/x.tar.xz"
    assert source["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]


def test_cyclonedx_says_the_same_as_spdx() -> None:
    bom = cyclonedx_of(WHOLE, lock=LOCK)
    packages = purls(spdx_of(WHOLE, lock=LOCK))
    found = {one["purl"]: one for one in bom["components"]}
    assert found.keys() == {LIBSSL, LIBC, CPYTHON, ODD}
    assert all(packages[purl]["versionInfo"] == one["version"] for purl, one in found.items())
    assert found[LIBSSL]["licenses"] == [{"expression": "Apache-2.0 AND LicenseRef-openssl-odd"}]
    assert {"name": "ocibuild:source", "value": "openssl 3.5.7-1"} in found[LIBSSL]["properties"]
    needs = {one["ref"]: set(one.get("dependsOn", ())) for one in bom["dependencies"]}
    assert needs[LIBSSL] == {LIBC}
    assert needs[bom["metadata"]["component"]["bom-ref"]] == found.keys()
    assert bom["metadata"]["timestamp"] == "2026-09-12T07:55:41+00:00"


def test_every_purl_says_what_it_must() -> None:
    for text in (LIBSSL, LIBC, CPYTHON, ODD):
        assert PackageURL.from_string(text).to_string() == text
    assert PackageURL.from_string(LIBC).version == "2.41-12+b1"
    assert PackageURL.from_string(LIBC).qualifiers["upstream"] == "glibc@2.41-12"


def test_files_on_request() -> None:
    document = spdx_of(WHOLE, files=True)
    owners = {one["relatedSpdxElement"]: one["spdxElementId"] for one in document["relationships"]}
    names = {package["SPDXID"]: package["name"] for package in document["packages"]}
    told = {one["fileName"]: names[owners[one["SPDXID"]]] for one in document["files"]}
    assert told["./usr/lib/libssl.so.3"] == "libssl3t64"
    assert told["./usr/local/bin/python3.14"] == "cpython"
    assert told["./usr/local/lib/python3.14/os.py"] == "cpython"
    assert told[f"./{SITE}/odd/__init__.py"] == "Odd.Name"
    assert told["./usr/local/bin/odd"] == "Odd.Name"
    assert told["./srv/b\\xff"] == "wee"
    sums = {one["algorithm"]: one["checksumValue"] for one in document["files"][-1]["checksums"]}
    assert sums.keys() == {"SHA1", "SHA256"}
    bom = cyclonedx_of(WHOLE, files=True)
    inside = {one["name"]: [part["name"] for part in one.get("components", ())] for one in bom["components"]}
    assert inside["libssl3t64"] == ["/usr/lib/libssl.so.3"]
    library = next(one for one in bom["components"] if one["name"] == "libssl3t64")["components"][0]
    assert library["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"ssl").hexdigest()}]
    assert "/srv/b\\xff" in inside
    assert "files" not in spdx_of(WHOLE)


def test_the_same_again_and_another_for_another_image() -> None:
    for write in (spdx, cyclonedx):
        once = write(survey(WHOLE, MemoryStore(), lock=LOCK))
        shuffled = Tree(reversed(list(WHOLE.tree.values())))
        assert write(survey(replace(WHOLE, tree=shuffled), MemoryStore(), lock=LOCK)) == once
        other = write(survey(replace(WHOLE, digest=Digest.of(b"other")), MemoryStore(), lock=LOCK))
        plain = write(survey(WHOLE, MemoryStore()))
        numbers = {re.search(rb"urn:uuid:[0-9a-f-]{36}", data)[0] for data in (once, other, plain)}  # type: ignore[index]
        assert len(numbers) == 3


def test_an_image_without_dpkg_is_read_from_status_d() -> None:
    moved = [
        file("var/lib/dpkg/status.d/libc6", STATUS.split(b"\n\n")[1]),
        file("var/lib/dpkg/status.d/libc6.md5sums", b"0" * 32 + b"  usr/lib/libc.so.6\n"),
        file("usr/lib/libc.so.6", b"libc"),
        file("usr/lib/os-release", OS_RELEASE),
    ]
    contents = survey(image_of(Tree(moved)), MemoryStore(), files=True)
    assert [one.purl for one in contents.components] == [LIBC]
    assert {one.path: one.owner for one in contents.files or ()}["usr/lib/libc.so.6"] == LIBC


@pytest.mark.parametrize(
    ("entries", "environment", "version"),
    [
        ([file("usr/local/include/python3.14/patchlevel.h", b'#define PY_VERSION   "3.14.6+"\n')], {}, "3.14.6"),
        ([], {"PYTHON_VERSION": "3.14.5rc2"}, "3.14.5rc2"),
        ([], {"PYTHON_VERSION": "2.7.18"}, "3.14"),
        ([], {}, "3.14"),
    ],
)
def test_the_version_of_a_cpython_that_dpkg_does_not_know(
    entries: list[Any], environment: dict[str, str], version: str
) -> None:
    image = replace(image_of(PYTHON, Tree(entries)), environment=environment)
    assert [one.version for one in survey(image, MemoryStore()).components] == [version]


def test_debians_own_python_is_debians_package() -> None:
    listed = file("var/lib/dpkg/info/libc6.list", b"/usr/local/lib/python3.14/os.py\n")
    image = image_of(BASE, PYTHON, Tree([listed]))
    assert {one.kind for one in survey(image, MemoryStore()).components} == {"deb"}


def test_an_empty_image_gives_documents_too() -> None:
    empty = image_of(Tree())
    assert len(spdx_of(empty, files=True)["packages"]) == 1
    assert cyclonedx_of(empty, files=True).get("components", []) == []


def test_a_damaged_database_is_refused_by_name() -> None:
    broken = image_of(Tree([file("var/lib/dpkg/status", b"Package: x\nno field\n")]))
    with pytest.raises(IntegrityError, match="no field") as caught:
        survey(broken, MemoryStore())
    assert "/var/lib/dpkg/status" in caught.value.render()
    nameless = image_of(Tree([file(f"{SITE}/x-1.dist-info/METADATA", b"Name: x\n\n")]))
    with pytest.raises(IntegrityError, match="without a name or version"):
        survey(nameless, MemoryStore())


def test_the_lock_of_another_image_is_refused() -> None:
    with pytest.raises(LockError, match="another image") as caught:
        survey(WHOLE, MemoryStore(), lock=lock_of([("libc6", "2.41-12+b1"), ("libssl3t64", "3.5.8-1")]))
    assert "libssl3t64 3.5.7-1" in caught.value.render()


def test_a_link_that_leads_round_is_no_copyright_file(tmp_path: Path) -> None:
    loop = [symlink("usr/share/doc/openssl/copyright", "../openssl/copyright")]
    found = {one.name: one for one in survey(image_of(BASE, Tree(loop)), MemoryStore()).components}
    assert found["libssl3t64"].licence is None
