"""A mirror damaged by hand: each byte, each length and each swap of its files ends in the same tree, or in a refusal.

The archive is tiny but of the real format, its .debs made by dpkg-deb; all of it goes the whole way, from the signed
Release to a configured Tree.
"""

from __future__ import annotations

import lzma
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import pytest

from rootfs.architecture import Architecture
from rootfs.archive import Download, fetch, read_index, read_release
from rootfs.bootstrap import bootstrap
from rootfs.debian.deb import unpack
from rootfs.debian.release import Release
from rootfs.debian.solve import solve
from rootfs.digest import Digest
from rootfs.errors import OcibuildError, TransferError
from rootfs.suite import Suite, package_url
from tests.fakes.archive import DATE, Signer, release
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore
from tests.fakes.transport import pages

URL = "https://archive.example.org/debian"
DISTS = f"{URL}/dists/tiny"
PACKAGES = "main/binary-amd64/Packages.xz"
AMD64 = Architecture.parse("amd64")
Files = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What an honest mirror serves by URL, once signed inline and once detached, and who signed it."""

    inline: Files
    detached: Files
    signer: Signer

    def form(self, name: str) -> Files:
        return self.inline if name == "inline" else self.detached


def build_deb(directory: Path, name: str, version: str, depends: str, dpkg_deb: str) -> bytes:
    root = directory / f"{name}_{version}"
    (root / "DEBIAN").mkdir(parents=True)
    (root / f"usr/share/{name}").mkdir(parents=True)
    (root / f"usr/share/{name}/text").write_text(f"{name} {version}\n")
    fields = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Nobody <n@example.org>\n{depends}"
    (root / "DEBIAN/control").write_text(f"{fields}Description: {name}\n")
    path = directory / f"{name}.deb"
    subprocess.run([dpkg_deb, "-Zxz", "--root-owner-group", "--build", root, path], check=True, capture_output=True)
    return path.read_bytes()


def stanza(name: str, version: str, depends: str, deb: bytes) -> str:
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n{depends}"
        f"Filename: pool/{name}.deb\nSize: {len(deb)}\nSHA256: {Digest.of(deb).hex}\n"
    )


def build(directory: Path, version: str, dpkg_deb: str, signer: Signer) -> Archive:
    wanted = {"tiny-tool": "Depends: tiny-data\n", "tiny-data": ""}
    debs = {name: build_deb(directory, name, version, depends, dpkg_deb) for name, depends in wanted.items()}
    text = "\n".join(stanza(name, version, wanted[name], deb) for name, deb in debs.items())
    packed = lzma.compress(text.encode())
    signed = release({PACKAGES: packed}, Acquire_By_Hash="yes")
    files = {f"{URL}/pool/{name}.deb": deb for name, deb in debs.items()}
    files[f"{DISTS}/main/binary-amd64/by-hash/SHA256/{Digest.of(packed).hex}"] = packed
    return Archive(
        inline={f"{DISTS}/InRelease": signer.clear(signed), **files},
        detached={f"{DISTS}/Release": signed, f"{DISTS}/Release.gpg": signer.detached(signed), **files},
        signer=signer,
    )


@pytest.fixture(scope="module")
def archive(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return build(tmp_path_factory.mktemp("archive"), "2", peer("dpkg-deb"), Signer())


@pytest.fixture(scope="module")
def older(archive: Archive, peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The same archive as it stood before, signed with the same key."""
    return build(tmp_path_factory.mktemp("older"), "1", peer("dpkg-deb"), archive.signer)


def tree_of(files: Files, archive: Archive) -> tuple[Release, bytes]:
    """The whole chain: what a mirror with these files gives; the Release without the digest of its signed form."""
    suite = Suite(archive=URL, name="tiny", components=("main",), keys=bytes(archive.signer.certificate))
    transport, store, reporter = pages(files), MemoryStore(), ListReporter()
    found = read_release(suite, transport=transport, store=store, mirrors={}, now=DATE)
    index = read_index([(suite, found)], AMD64, transport=transport, store=store, mirrors={}, reporter=reporter)
    packages = solve(index, ["tiny-tool"]).packages
    downloads = [Download(url=package_url(p, [suite]), digest=p.digest, size=p.size) for p in packages]
    fetch(downloads, transport=transport, store=store, mirrors={}, reporter=reporter, task="debs", connections=1)
    unpacked = [unpack(store.open(p.digest), store, p.name) for p in packages]
    tree = bootstrap(unpacked, store=store, epoch=DATE, architecture=AMD64)
    assert "usr/share/tiny-data/text" in tree
    return replace(found, digest=Digest.of(b"")), tree.to_bytes()


def outcome(files: Files, archive: Archive) -> tuple[Release, bytes] | None:
    """None for a refusal; anything but an error of ours is a bug, and leaves the test with its traceback."""
    try:
        return tree_of(files, archive)
    except OcibuildError:
        return None


def flips(data: bytes) -> Iterator[bytes]:
    """One bit of each byte, each time the next one: enough where a digest decides."""
    for position, byte in enumerate(data):
        yield data[:position] + bytes([byte ^ (1 << position % 8)]) + data[position + 1 :]


def every_flip(data: bytes) -> Iterator[bytes]:
    """Each bit of each byte."""
    for position, byte in enumerate(data):
        for bit in range(8):
            yield data[:position] + bytes([byte ^ (1 << bit)]) + data[position + 1 :]


def cuts(data: bytes) -> Iterator[bytes]:
    yield from (data[:length] for length in range(len(data)))


FORMS = ("inline", "detached")


def find(files: Files, name: str) -> str:
    (url,) = [url for url in files if name == url.rpartition("/")[2] or f"/{name}/" in url]
    return url


def test_an_honest_mirror_gives_a_tree(archive: Archive, older: Archive) -> None:
    """The damage below is done to something sound, and the older archive would be another tree."""
    tree = tree_of(archive.inline, archive)
    assert tree == tree_of(archive.detached, archive)
    assert tree != tree_of(older.inline, archive)


@pytest.mark.parametrize(
    ("form", "name", "damage"),
    [
        ("inline", "InRelease", every_flip),
        ("inline", "InRelease", cuts),
        ("detached", "Release", flips),
        ("detached", "Release", cuts),
        ("detached", "Release.gpg", every_flip),
        ("detached", "Release.gpg", cuts),
        ("inline", "by-hash", flips),
        ("inline", "by-hash", cuts),
        ("inline", "tiny-tool.deb", flips),
        ("inline", "tiny-tool.deb", cuts),
        ("inline", "tiny-data.deb", flips),
        ("inline", "tiny-data.deb", cuts),
    ],
)
def test_a_damaged_file_never_gives_another_tree(
    form: str, name: str, damage: Callable[[bytes], Iterator[bytes]], archive: Archive
) -> None:
    honest = archive.form(form)
    url = find(honest, name)
    expected = tree_of(honest, archive)
    outcomes = [outcome({**honest, url: bad}, archive) for bad in damage(honest[url])]
    accepted = [found for found in outcomes if found is not None]
    assert all(found == expected for found in accepted)
    # what no signature covers: the armor's frame and headers, and white space at the end of a line
    lenient = len(outcomes) // 4 if name in ("InRelease", "Release.gpg") else 0
    assert len(accepted) <= lenient < len(outcomes)


@pytest.mark.parametrize("form", FORMS)
def test_swapped_files_never_give_another_tree(form: str, archive: Archive) -> None:
    honest = archive.form(form)
    for one, other in permutations(honest, 2):
        assert outcome({**honest, one: honest[other]}, archive) is None, (one, other)
        assert outcome({**honest, one: honest[other], other: honest[one]}, archive) is None, (one, other)


@pytest.mark.parametrize("form", FORMS)
def test_files_of_an_older_state_do_not_mix_with_newer_ones(form: str, archive: Archive, older: Archive) -> None:
    honest, stale = archive.form(form), older.form(form)
    for url in stale:
        assert outcome({**honest, url: stale[url]}, archive) in (None, tree_of(honest, archive)), url


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_file_is_said_with_its_url(form: str, archive: Archive) -> None:
    honest = archive.form(form)
    for url in honest:
        with pytest.raises(OcibuildError) as caught:
            tree_of({other: data for other, data in honest.items() if other != url}, archive)
        place = caught.value.at or ""
        assert place.startswith(URL), caught.value.render()


def test_a_file_that_is_longer_than_it_should_be_is_refused(archive: Archive) -> None:
    for url in archive.inline:
        assert outcome({**archive.inline, url: archive.inline[url] + b"x"}, archive) is None, url


def test_where_by_hash_is_not_served_the_plain_path_is_read(archive: Archive) -> None:
    by_hash = find(archive.inline, "by-hash")
    files = {url: data for url, data in archive.inline.items() if url != by_hash}
    files[f"{DISTS}/{PACKAGES}"] = archive.inline[by_hash]
    assert tree_of(files, archive) == tree_of(archive.inline, archive)
    damaged = {**files, f"{DISTS}/{PACKAGES}": archive.inline[by_hash][:-1]}
    assert outcome(damaged, archive) is None


def test_an_inline_signature_goes_before_a_detached_one(archive: Archive, older: Archive) -> None:
    """A bad InRelease is not mended with a Release beside it: only where there is none is that one read."""
    both = {**older.detached, **archive.inline}
    assert tree_of(both, archive) == tree_of(archive.inline, archive)
    assert outcome({**both, f"{DISTS}/InRelease": b"<html>"}, archive) is None


def test_another_repositorys_key_is_refused(archive: Archive) -> None:
    other = replace(archive, signer=Signer())
    for form in FORMS:
        assert outcome(archive.form(form), other) is None


def test_a_mirror_that_fails_is_no_missing_file(archive: Archive) -> None:
    """A server's error on InRelease does not send us to the detached form."""
    broken = pages({**archive.detached, f"{DISTS}/InRelease": TransferError("500")})
    suite = Suite(archive=URL, name="tiny", components=("main",), keys=bytes(archive.signer.certificate))
    with pytest.raises(TransferError, match="500"):
        read_release(suite, transport=broken, store=MemoryStore(), mirrors={}, now=DATE)
    assert [request.url for request in broken.requests] == [f"{DISTS}/InRelease"]
