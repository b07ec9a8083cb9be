"""SBOMs and provenance of real files: against dpkg's own list, in registries, and as oras and regctl find them."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from builder.app import Built, push_image, references_of, targets_of
from builder.cli import run
from builder.oci.descriptor import Descriptor
from builder.oci.layout import write_layout
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.target import Place
from builder.tools import Tools
from builder.trust.attach import Document, artifact, attach
from rootfs.transport import HttpTransport
from rootfs.tree import Tree, file
from tests.integration.conftest import Image
from tests.peers.olareg import olareg
from tests.peers.registry import registry
from tests.unit.test_images import image_of, tools_in

DOCUMENTS = (
    Document(media_type="application/spdx+json", file_name="x.spdx.json", data=b'{"spdxVersion":"SPDX-2.3"}'),
    Document(media_type="application/vnd.cyclonedx+json", file_name="x.cdx.json", data=b'{"bomFormat":"CycloneDX"}'),
)


def built(place: Path) -> tuple[Built, Tools]:
    """A small image in a layout, with two documents attached."""
    tools = tools_in(place)
    image = image_of(Tree([file("x", b"content")]), tools)
    write_layout(place / "image", tools.store, image.descriptor, ref_name="1")
    made = tuple(artifact(one, image.descriptor, tools.store, created=0) for one in DOCUMENTS)
    attach(place / "image", made, tools.store)
    return Built(
        place=Place(form="oci", path=place / "image"), tag="1", descriptor=image.descriptor, attached=made
    ), tools


def connect(reference: Reference) -> Registry:
    """A registry on the loopback."""
    return Registry(HttpTransport(), reference, plain_http=True)


@pytest.mark.archive
@pytest.mark.peer
def test_the_packages_are_those_that_dpkg_lists(
    shared_store: Path, debian_mirror: str, peer: Callable[[str], str], tmp_path: Path, capfdbinary: Any
) -> None:
    dpkg_query = peer("dpkg-query")
    common = ["--store", str(shared_store), "--mirror", debian_mirror, "--no-security"]
    layout = tmp_path / "image"
    for target in (f"oci:{layout}", str(tmp_path / "files")):
        assert run(["rootfs", "trixie", "--include", "apt", "--output", target, *common]) == 0
    form = "${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\\n"
    argv = [dpkg_query, f"--admindir={tmp_path}/files/var/lib/dpkg", "--show", f"--showformat={form}"]
    listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    capfdbinary.readouterr()
    assert run(["sbom", str(layout), "--store", str(shared_store)]) == 0
    document = json.loads(capfdbinary.readouterr().out)
    assert not validate_full_spdx_document(JsonLikeDictParser().parse(document))
    told, sources = set(), set()
    for package in document["packages"]:
        purl = PackageURL.from_string(package["externalRefs"][0]["referenceLocator"])
        if purl.type == "deb" and purl.qualifiers["arch"] == "source":
            sources.add((purl.name, purl.version))
        elif purl.type == "deb":
            told.add((purl.name, purl.version, purl.qualifiers["arch"]))
    assert told == {tuple(line.split()[:3]) for line in listed}
    assert sources == {tuple(line.split()[3:]) for line in listed}
    licences = [package["licenseDeclared"] for package in document["packages"]]
    assert sum(licence != "NOASSERTION" for licence in licences) > len(told) // 2
    assert run(["sbom", str(layout), "--format", "cyclonedx", "--files", "--store", str(shared_store)]) == 0
    text = capfdbinary.readouterr().out.decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    tree = tmp_path / "files"
    inside = {f"/{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_file() and not path.is_symlink()}
    named = {part["name"] for one in json.loads(text)["components"] for part in (one, *one.get("components", ()))}
    assert {name for name in named if name.startswith("/")} == inside


@pytest.mark.peer
def test_they_are_pushed_before_the_tag_is_set(peer: Callable[[str], str], tmp_path: Path) -> None:
    one, tools = built(tmp_path)
    with registry(peer("docker-registry"), tmp_path / "registry") as host:
        list(push_image(one, targets_of(one.tag, references_of([f"{host}/some/image:1"]), connect), tools))
        there = connect(Reference.parse(f"{host}/some/image:1"))
        for attached in one.attached:
            _, data = there.get_manifest(attached.digest)
            manifest = json.loads(data)
            assert manifest["subject"]["digest"] == str(one.descriptor.digest)
            (layer,) = manifest["layers"]
            assert b"".join(there.open(Descriptor.from_dict(layer))) in [document.data for document in DOCUMENTS]
        assert there.head_manifest("1") == one.descriptor.digest


@pytest.mark.peer
def test_a_registry_with_the_referrers_api_lists_them(peer: Callable[[str], str], tmp_path: Path) -> None:
    one, tools = built(tmp_path)
    with olareg(peer("olareg"), tmp_path / "registry") as host:
        list(push_image(one, targets_of(one.tag, references_of([f"{host}/some/image:1"]), connect), tools))
        url = f"http://{host}/v2/some/image/referrers/{one.descriptor.digest}"
        with urllib.request.urlopen(url) as answer:
            listed = json.load(answer)["manifests"]
    assert {(entry["digest"], entry["artifactType"]) for entry in listed} == {
        (str(attached.digest), attached.artifact_type) for attached in one.attached
    }


@pytest.mark.peer
@pytest.mark.parametrize(
    ("program", "argv"),
    [
        ("regctl", ["artifact", "list", "ocidir://{}:1", "--format", "{{{{json .}}}}"]),
        ("oras", ["discover", "--oci-layout", "{}:1", "--format", "json"]),
    ],
)
def test_others_find_them_in_the_layout(
    program: str, argv: list[str], peer: Callable[[str], str], tmp_path: Path
) -> None:
    one, _ = built(tmp_path)
    words = [word.format(one.layout) for word in argv]
    said = subprocess.run([peer(program), *words], check=True, capture_output=True, text=True).stdout
    for attached in one.attached:
        assert str(attached.digest) in said
        assert attached.artifact_type is not None
        assert attached.artifact_type in said


@pytest.mark.peer
def test_skopeo_still_copies_the_image_by_its_tag(peer: Callable[[str], str], tmp_path: Path) -> None:
    one, _ = built(tmp_path)
    argv = [peer("skopeo"), "inspect", "--raw", f"oci:{one.layout}:1"]
    raw = subprocess.run(argv, check=True, capture_output=True).stdout
    assert Descriptor.of(one.descriptor.media_type, raw).digest == one.descriptor.digest


@pytest.mark.compile
@pytest.mark.archive
def test_the_recipes_image_has_all_three(image: Image) -> None:
    listed = image.ocibuild("referrers", "wee", "--json")
    assert listed.returncode == 0, listed.stderr
    assert {one["artifactType"] for one in json.loads(listed.stdout)} == {
        "application/spdx+json",
        "application/vnd.cyclonedx+json",
        "application/vnd.in-toto+json",
    }
    documents = {kind: image.ocibuild("referrers", "wee", "--get", kind).stdout for kind in ("spdx", "provenance")}
    assert not validate_full_spdx_document(JsonLikeDictParser().parse(json.loads(documents["spdx"])))
    statement = json.loads(documents["provenance"])
    assert f"sha256:{statement['subject'][0]['digest']['sha256']}" == image.digest
    located = [
        (one["digest"]["sha256"], one["downloadLocation"])
        for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        if one["uri"].startswith("pkg:deb/")
    ]
    packages = json.loads(documents["spdx"])["packages"]
    sums = {check["checksumValue"] for package in packages for check in package.get("checksums", ())}
    assert {digest for digest, _ in located} & sums
    assert all(url.startswith(("https://ftp.debian.org/", "https://security.debian.org/")) for _, url in located)
