"""The whole way, as an ordinary user: a clone, `make image`, and what other people's tools say of the result."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from builder.app import find_recipe
from builder.execute import execute
from builder.lock import Lock
from builder.oci.descriptor import REF_NAME
from builder.oci.layer import Layer
from builder.oci.layout import read_layout
from builder.oci.manifest import Manifest
from builder.plan import make_plan
from builder.python.acceptance import check_values, image_checks
from builder.python.verify import program
from builder.tools import Tools
from rootfs.ports import read_blob
from rootfs.sandbox.namespaces import NamespaceSandbox
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport
from tests.conftest import ROOT
from tests.fakes.reporter import ListReporter
from tests.integration.conftest import RECIPE, Image
from tests.peers.registry import registry

pytestmark = [pytest.mark.compile, pytest.mark.archive]
DAEMONS = {"systemd", "systemd-sysv", "udev", "libpam-systemd", "dbus", "dbus-daemon", "dbus-user-session"}


def test_one_line_with_layout_and_digest_is_printed(image: Image) -> None:
    assert re.fullmatch(r"dist/wee@sha256:[0-9a-f]{64}", image.line)
    assert str(read_layout(image.layout).manifests[0].digest) == image.digest


def test_a_second_run_only_looks_keys_up(image: Image) -> None:
    done = image.ocibuild("recipe", RECIPE, "--locked")
    assert done.stdout.rstrip("\n") == image.line
    assert done.stderr == ""


def test_the_lock_names_every_input(image: Image) -> None:
    lock = Lock.parse((image.clone / "recipes/wee.lock.toml").read_bytes(), at="lock")
    assert {release.suite for release in lock.release} == {"trixie", "trixie-security"}
    assert all(release.signers for release in lock.release)
    assert len(lock.packages("runtime")) > 70
    assert not {package.name for package in lock.package} & DAEMONS
    mirrors = set(image.mirrors.values())
    assert not any(mirror in (image.clone / "recipes/wee.lock.toml").read_text() for mirror in mirrors)


def test_skopeo_reads_it(image: Image, peer: Callable[[str], str]) -> None:
    done = subprocess.run([peer("skopeo"), "inspect", image.reference], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert seen["Digest"] == image.digest
    assert len(seen["Layers"]) == 3
    assert "PYTHON_VERSION=3.14.7" in seen["Env"]


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_it_goes_straight_into_an_archive(image: Image, peer: Callable[[str], str], form: str) -> None:
    tag = read_layout(image.layout).manifests[0].annotations[REF_NAME]
    path = image.clone / f"dist/{form}.tar"
    name = {"oci-archive": f"dist/{form}.tar", "docker-archive": f"dist/{form}.tar:wee:{tag}"}[form]
    done = image.ocibuild("recipe", RECIPE, "--locked", "--output", f"{form}:dist/{form}.tar")
    assert done.stdout == f"{name}@{image.digest}\n"
    reference = {"oci-archive": f"{path}:{tag}", "docker-archive": f"{path}:wee:{tag}"}[form]
    seen = [
        json.loads(
            subprocess.run(
                [peer("skopeo"), "inspect", "--config", one], capture_output=True, text=True, check=True
            ).stdout
        )
        for one in (f"{form}:{reference}", image.reference)
    ]
    assert seen[0] == seen[1]


def test_umoci_unpacks_it(image: Image, peer: Callable[[str], str], tmp_path: Path) -> None:
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    command = [peer("umoci"), "unpack", *rootless, "--image", image.reference.removeprefix("oci:"), str(tmp_path / "b")]
    subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "b/rootfs/usr/local/bin/python3.14").is_file()
    assert (tmp_path / "b/rootfs").stat().st_mode & 0o777 == 0o755


@pytest.fixture(scope="module")
def run_inside(image: Image, peer: Callable[[str], str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in the image with podman and runc, away from any network."""
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    podman = [peer("podman"), "--runtime", peer("runc"), "run", "--rm", "--quiet", "--network=none", *limits]

    def run(*argv: str, mount: Path | None = None) -> subprocess.CompletedProcess[str]:
        volume = ["-v", f"{mount}:/mnt:ro"] if mount else []
        return subprocess.run([*podman, *volume, image.reference, *argv], capture_output=True, text=True, check=False)

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_interpreter_passes_its_acceptance(run_inside: Run) -> None:
    """As `ocibuild verify` has it, but in podman's container."""
    checks = image_checks((3, 14, 7), facts=("ldconfig", "pip", "pyc", "venv"))
    done = run_inside("python3", "-c", program(checks, check_values((3, 14, 7))))
    assert done.returncode == 0, done.stdout + done.stderr


def test_certificates_zones_and_locale_are_there(run_inside: Run) -> None:
    program = (
        "import locale, ssl, zoneinfo, ctypes.util; locale.setlocale(locale.LC_ALL, '');"
        "print(len(ssl.create_default_context().get_ca_certs()) > 100, zoneinfo.ZoneInfo('Asia/Tokyo'),"
        " locale.getencoding(), ctypes.util.find_library('ssl'))"
    )
    assert run_inside("python3", "-c", program).stdout == "True Asia/Tokyo UTF-8 libssl.so.3\n"


@pytest.mark.parametrize("command", ["dpkg --audit", "apt-get check"])
def test_debians_tools_find_nothing_wrong(run_inside: Run, command: str) -> None:
    done = run_inside("sh", "-c", command)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if command == "dpkg --audit":
        assert done.stdout == ""


def test_dpkg_misses_only_what_the_recipe_leaves_out(run_inside: Run) -> None:
    """As it does after filtering on its own: path-exclude leaves the lists as they are."""
    lines = run_inside("dpkg", "--verify").stdout.splitlines()
    filters = run_inside("cat", "/etc/dpkg/dpkg.cfg.d/ocibuild-slim").stdout
    left_out = re.findall(r"^path-exclude=(.*)$", filters, re.MULTILINE)
    missing = [line.split()[-1] for line in lines if line.startswith("missing ")]
    assert 0 < len(missing) == len(lines)
    assert [path for path in missing if not any(fnmatch(path, glob) for glob in left_out)] == []


def test_no_package_of_systemds_daemons_is_installed(run_inside: Run) -> None:
    installed = run_inside("dpkg-query", "-W", "-f", "${Package}\n").stdout.split()
    assert "apt" in installed
    assert not DAEMONS & set(installed)


def test_pip_installs_a_pure_and_a_manylinux_wheel(run_inside: Run, tmp_path: Path) -> None:
    platform = ["--only-binary=:all:", "--python-version=3.14", "--platform=manylinux_2_28_x86_64"]
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), *platform]
    fetched = subprocess.run([*download, "six", "markupsafe"], capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"no wheels to be had: {fetched.stderr[-200:]}")
    tmp_path.chmod(0o755)
    tmp_path.parent.chmod(0o755)
    install = "pip install --no-index --find-links /mnt --root-user-action=ignore six markupsafe"
    program = "import six, markupsafe._speedups as s; print(s.__file__)"
    done = run_inside("sh", "-c", f"{install} && python3 -c '{program}'", mount=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("x86_64-linux-gnu.so")
    assert "WARNING" not in done.stderr


@pytest.fixture(scope="module")
def pushed(image: Image, tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], str]) -> Iterator[str]:
    """`host:port/repository:tag` on a real docker-registry that the image was pushed to."""
    with registry(peer("docker-registry"), tmp_path_factory.mktemp("registry")) as host:
        reference = f"{host}/python:3.14-wee"
        done = image.ocibuild("recipe", RECIPE, "--push", reference, "--plain-http")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{host}/python@{image.digest}\n"
        yield reference


def test_what_skopeo_pulls_has_the_same_digest(
    image: Image, pushed: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    copy = [peer("skopeo"), "copy", "--quiet", "--src-tls-verify=false", f"docker://{pushed}", f"oci:{tmp_path}/p:x"]
    subprocess.run(copy, capture_output=True, text=True, check=True)
    assert str(read_layout(tmp_path / "p").manifests[0].digest) == image.digest


def test_what_podman_pulls_has_the_same_digest(image: Image, pushed: str, peer: Callable[[str], str]) -> None:
    subprocess.run([peer("podman"), "pull", "--quiet", "--tls-verify=false", pushed], capture_output=True, check=True)
    inspect = [peer("podman"), "image", "inspect", "--format", "{{.Digest}}", pushed]
    done = subprocess.run(inspect, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == image.digest


def tools_of_the_suite(store: Path, image: Image) -> Tools:
    """The ports as the user who runs the suite has them, on another store."""
    mirrors = {"debian": image.mirrors["OCIBUILD_MIRROR"], "debian-security": image.mirrors["OCIBUILD_SECURITY_MIRROR"]}
    return Tools(
        store=DiskStore(store),
        transport=HttpTransport(),
        sandbox=NamespaceSandbox(),
        reporter=ListReporter(),
        mirrors=mirrors,
        work=store / "work",
        jobs=4,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="compares root's build with an ordinary user's: run as root")
def test_root_makes_the_same_base_layer_from_a_store_without_results(image: Image, shared_store: Path) -> None:
    recipe = find_recipe(str(image.clone / RECIPE)).recipe
    lock = Lock.parse((image.clone / "recipes/wee.lock.toml").read_bytes(), at="lock")
    tools = tools_of_the_suite(shared_store, image)
    base = next(step for step in make_plan(recipe, lock).walk() if step.title == "pack the base layer")
    layer = Layer.from_bytes(read_blob(tools.store, execute(base, tools)))
    manifest = Manifest.parse((image.layout / "blobs/sha256" / image.digest.removeprefix("sha256:")).read_bytes())
    assert layer.descriptor == manifest.layers[0]


@pytest.mark.twice
@pytest.mark.skipif(os.geteuid() != 0, reason="compares root's build with an ordinary user's: run as root")
def test_root_makes_the_same_image_from_an_empty_store(image: Image, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    for name in ("wee.toml", "wee.lock.toml"):
        (tmp_path / "recipes" / name).write_bytes((image.clone / "recipes" / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "builder",
        "recipe",
        RECIPE,
        "--locked",
        "--jobs",
        "3",
        "--store",
        str(tmp_path / "s"),
    ]
    environment = os.environ | image.mirrors | {"PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    mask = os.umask(0o077)
    try:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    finally:
        os.umask(mask)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n") == image.line
