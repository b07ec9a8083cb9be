"""cosign's signatures and attestations travel with the image, wherever cosign keeps them, and still verify there.

By default it attaches a bundle, which has the image as its subject; until 3.0 it wrote tags that name the image's
digest. Key pairs, no transparency log: nothing here needs a network.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.test_pack_verb import ocibuild
from tests.peers.zot import zot

pytestmark = pytest.mark.peer

Peer = Callable[[str], str]
SCHEMES = {"bundle": "--new-bundle-format=true", "tags": "--new-bundle-format=false"}
OFFLINE = ("--tlog-upload=false", "--use-signing-config=false", "--yes")


@dataclass(frozen=True)
class Cosign:
    """The program with a key pair of its own (`cosign.key`, `cosign.pub` in `place`)."""

    program: str
    place: Path

    def run(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(self.place), "PATH": "/usr/bin:/bin", "COSIGN_PASSWORD": "", "NO_PROXY": "localhost"}
        words = [self.program, *map(str, argv)]
        return subprocess.run(
            words, env=environment, cwd=self.place, capture_output=True, text=True, timeout=120, check=False
        )

    def does(self, *argv: str | Path) -> str:
        done = self.run(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def verifies(self, image: str) -> bool:
        """Whether the key's signature and its attestation of an SBOM are good for `host/repository@digest`."""
        words = ["--key", "cosign.pub", "--insecure-ignore-tlog", "--allow-http-registry", image]
        signed, attested = self.run("verify", *words), self.run("verify-attestation", "--type", "spdxjson", *words)
        good = [done.returncode == 0 for done in (signed, attested)]
        assert good[0] is good[1], signed.stderr + attested.stderr
        return good[0]


@pytest.fixture(scope="module")
def cosign(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    found = Cosign(peer("cosign"), tmp_path_factory.mktemp("cosign"))
    found.does("generate-key-pair")
    return found


@pytest.fixture(scope="module")
def third(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """zot, which takes OCI's media types only."""
    with zot(peer("zot"), tmp_path_factory.mktemp("zot")) as host:
        yield host


@dataclass(frozen=True)
class Signed:
    """An index of two platforms at `reference`, signed with all in it; `digests` are its own and its images'."""

    reference: str
    digests: tuple[str, ...]

    def at(self, repository: str) -> list[str]:
        return [f"{repository}@{digest}" for digest in self.digests]


def said(*argv: str | Path) -> str:
    done = ocibuild(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copied(source: str, target: str, *options: str) -> None:
    said("copy", source, target, "--plain-http", *options)


@pytest.fixture(scope="module", params=SCHEMES)
def signed(
    request: pytest.FixtureRequest, cosign: Cosign, plain: str, tmp_path_factory: pytest.TempPathFactory
) -> Signed:
    """It lies in the registry without the referrers API; both its images have an SBOM, too, which is attested."""
    place = tmp_path_factory.mktemp("image")
    (place / "tree").mkdir()
    (place / "tree/hello").write_text("hello\n")
    store, digests = ["--store", place / "store"], []
    for platform in ("amd64", "arm64"):
        layout = f"{place}/{platform}:1"
        line = said("pack", place / "tree", "--platform", f"linux/{platform}", "-o", f"oci:{layout}", *store)
        digests.append(line.strip().rpartition("@")[2])
    sbom = place / "sbom.json"
    sbom.write_text(said("sbom", f"{place}/amd64:1", *store))
    reference = f"{plain}/team/{request.param}"
    line = said("index", f"{place}/amd64:1", f"{place}/arm64:1", "--push", f"{reference}:1", "--plain-http", *store)
    found = Signed(f"{reference}:1", (line.strip().rpartition("@")[2], *digests))
    words = [*OFFLINE, SCHEMES[request.param], "--allow-http-registry", "--key", "cosign.key"]
    cosign.does("sign", "--recursive", *words, f"{reference}@{found.digests[0]}")
    for image in found.at(reference):
        cosign.does("attest", "--type", "spdxjson", "--predicate", sbom, *words, image)
    return found


def test_from_registry_to_registry(signed: Signed, cosign: Cosign, plain: str, modern: str, third: str) -> None:
    """Also from one that lists referrers to one that does not."""
    name = signed.reference.rpartition("/")[2].replace(":", "-")
    ways = [f"{modern}/copied/{name}", f"{third}/copied/{name}", f"{plain}/returned/{name}"]
    source = signed.reference
    for target in ways:
        copied(source, f"{target}:1")
        assert all(cosign.verifies(image) for image in signed.at(target)), target
        source = f"{target}:1"
    copied(signed.reference, f"{modern}/bare/{name}:1", "--no-referrers")
    assert not any(cosign.verifies(image) for image in signed.at(f"{modern}/bare/{name}"))


@pytest.mark.parametrize("form", ["oci", "oci-archive"])
def test_across_an_air_gap(form: str, signed: Signed, cosign: Cosign, plain: str, modern: str, tmp_path: Path) -> None:
    said("pull", signed.reference, f"{form}:{tmp_path}/carried:1", "--plain-http", "--store", tmp_path / "near")
    for host in (plain, modern):
        target = f"{host}/far/{form}-{signed.reference.rpartition('/')[2].replace(':', '-')}"
        said("push", f"{tmp_path}/carried:1", f"{target}:1", "--plain-http", "--store", tmp_path / "far")
        assert all(cosign.verifies(image) for image in signed.at(target)[:2]), target


def test_one_platform_takes_its_own_along(signed: Signed, cosign: Cosign, modern: str) -> None:
    target = f"{modern}/arm64/{signed.reference.rpartition('/')[2].replace(':', '-')}"
    copied(signed.reference, f"{target}:1", "--platform", "linux/arm64")
    assert cosign.verifies(f"{target}@{signed.digests[2]}")
    assert not cosign.verifies(f"{target}@{signed.digests[0]}")


def test_what_was_copied_may_be_signed_again(
    signed: Signed, cosign: Cosign, modern: str, plain: str, tmp_path: Path
) -> None:
    """A second signature, by another key, lies beside the first one after the next copy."""
    other = Cosign(cosign.program, tmp_path)
    other.does("generate-key-pair")
    name = f"again/{signed.reference.rpartition('/')[2].replace(':', '-')}"
    copied(signed.reference, f"{modern}/{name}:1")
    copied(signed.reference, f"{plain}/{name}:1")
    scheme = SCHEMES["tags" if "tags" in signed.reference else "bundle"]
    image = f"{modern}/{name}@{signed.digests[0]}"
    other.does("sign", *OFFLINE, scheme, "--allow-http-registry", "--key", "cosign.key", image)
    for source in (f"{modern}/{name}:1", signed.reference):  # the second has the first signature alone
        copied(source, f"{plain}/{name}:1")
        words = ["--insecure-ignore-tlog", "--allow-http-registry", f"{plain}/{name}@{signed.digests[0]}"]
        for one in (cosign, other):
            assert json.loads(one.does("verify", "--key", "cosign.pub", *words))


def test_an_sbom_that_cosign_attached_travels(cosign: Cosign, plain: str, modern: str, tmp_path: Path) -> None:
    """Under a tag of its own, without a signature, and a newer one takes its place."""
    (tmp_path / "tree").mkdir()
    store = ["--store", tmp_path / "store", "--plain-http"]
    digest = said("pack", tmp_path / "tree", "--push", f"{plain}/sbom/x:1", *store).strip().rpartition("@")[2]
    for text in ("first", "second"):
        (tmp_path / "sbom").write_text(text)
        cosign.does("attach", "sbom", "--sbom", tmp_path / "sbom", "--allow-http-registry", f"{plain}/sbom/x@{digest}")
        copied(f"{plain}/sbom/x:1", f"{modern}/sbom/x:1")
        assert cosign.does("download", "sbom", "--allow-http-registry", f"{modern}/sbom/x@{digest}").strip() == text
    (listed,) = json.loads(said("referrers", f"{modern}/sbom/x:1", "--plain-http", "--json"))
    assert listed["annotations"] == {"org.opencontainers.image.ref.name": f"sha256-{digest[7:]}.sbom"}


def test_signatures_that_would_be_lost_are_an_error(cosign: Cosign, plain: str, modern: str, tmp_path: Path) -> None:
    """Two who signed the same image apart from each other, in tags: neither list holds the other."""
    (tmp_path / "tree").mkdir()
    store = ["--store", tmp_path / "store", "--plain-http"]
    digest = said("pack", tmp_path / "tree", "--push", f"{plain}/apart/x:1", *store).strip().rpartition("@")[2]
    copied(f"{plain}/apart/x:1", f"{modern}/apart/x:1")
    other = Cosign(cosign.program, tmp_path)
    other.does("generate-key-pair")
    for one, host in ((cosign, plain), (other, modern)):
        words = [*OFFLINE, SCHEMES["tags"], "--allow-http-registry", "--key", "cosign.key"]
        one.does("sign", *words, f"{host}/apart/x@{digest}")
    done = ocibuild("copy", f"{plain}/apart/x:1", f"{modern}/apart/x:2", "--plain-http")
    assert (done.returncode, "signatures in the registry would be lost" in done.stderr) == (6, True), done.stderr
    assert said("tags", f"{modern}/apart/x", "--plain-http").split() == ["1", f"sha256-{digest[7:]}.sig"]
    verify = ["verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--allow-http-registry"]
    assert other.does(*verify, f"{modern}/apart/x@{digest}")
    copied(f"{plain}/apart/x:1", f"{modern}/apart/x:2", "--no-referrers")
