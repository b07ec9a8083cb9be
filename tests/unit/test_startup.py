"""What a run imports: no more than what it does needs. Half of a short run's time goes into imports.

No clock: each run tells which modules it had in the end. A module that is missing here may be imported freely; who
needs one of those that are named, for the verb's usual way, imports it where it is used, or takes it out of the list.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.version import VERSION
from tests.peers.registry import registry

_RUN = """
import sys
from builder.cli import run
status = run(sys.argv[2:])
with open(sys.argv[1], "w") as told:
    told.write("\\n".join(sys.modules))
sys.exit(status)
"""

BUILDING = ("builder.app", "builder.execute", "builder.plan", "builder.recipe", "builder.lock", "pysequoia", "deflate")
HTTP = ("http.client", "urllib3", "ssl", "email", "rootfs.transport")
"""What speaks HTTP."""
NEVER = (*BUILDING, "requests", "charset_normalizer", "tqdm", "filelock", "zstandard", "cryptography", "difflib")
"""What no verb needs that looks at, pushes or pulls an image in a plain registry, or in a layout."""
SANDBOX = ("rootfs.sandbox.namespaces", "rootfs.sandbox.mounts", "subprocess", "ctypes")
TREES = ("msgspec", "rootfs.tree", "builder.oci.flatten", "tarfile", "builder.images", "builder.oci.archive")
"""What looks into layers."""
ACCOUNTS = ("builder.registry.auth", "builder.registry.accounts", "tomllib")
"""What nobody asks for: the registry lets everybody in."""
SENDING = ("builder.transit", "builder.registry.transfer", "builder.registry.receipt")


class Tool:
    """`ocibuild` in a home without a configuration."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._told = place / "modules"
        dropped = ("proxy", "ocibuild_", "pip_", "docker_", "registry_", "ci_", "github_", "ssl_", "requests_")
        self._environment = {name: value for name, value in os.environ.items() if not name.lower().startswith(dropped)}
        self._environment = {name: value for name, value in self._environment.items() if "proxy" not in name.lower()}
        self._environment |= {"HOME": str(place), "XDG_CONFIG_HOME": str(place), "XDG_CACHE_HOME": str(place)}

    def run(self, *argv: str) -> tuple[str, frozenset[str]]:
        """What it printed, and the modules it had imported in the end."""
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(self._told), *argv],
            capture_output=True,
            text=True,
            env=self._environment,
            cwd=self._place,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, frozenset(self._told.read_text().split("\n"))


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path)


@pytest.fixture
def image(tool: Tool, tmp_path: Path) -> str:
    """A layout with a small image."""
    with tarfile.open(tmp_path / "files.tar", "w") as archive:
        archive.addfile(member := tarfile.TarInfo("a"), io.BytesIO(b"x" * member.size))
    tool.run("pack", str(tmp_path / "files.tar"), "--output", f"oci:{tmp_path / 'layout'}:x")
    return f"oci:{tmp_path / 'layout'}:x"


@pytest.fixture
def host(peer: Callable[[str], str], tmp_path: Path) -> Iterator[str]:
    with registry(peer("docker-registry"), tmp_path / "registry") as host:
        yield host


def test_version(tool: Tool) -> None:
    printed, modules = tool.run("--version")
    assert printed == f"ocibuild {VERSION}\n"
    assert (
        sorted(modules & {*NEVER, *HTTP, *SANDBOX, *TREES, "rootfs.files", "dataclasses", "tempfile", "traceback"})
        == []
    )


def test_settings(tool: Tool) -> None:
    _, modules = tool.run("settings")
    assert sorted(modules & {*NEVER, *HTTP, *SANDBOX, *TREES, *ACCOUNTS, "tempfile"}) == []


def test_push_of_what_is_there(tool: Tool, host: str, image: str) -> None:
    argv = ("push", image, f"{host}/a/b:x", "--plain-http", "--no-referrers")
    first, _ = tool.run(*argv)
    second, modules = tool.run(*argv)
    assert second == first
    assert sorted(modules & {*NEVER, *SANDBOX, *TREES, *ACCOUNTS, "builder.registry.probe"}) == []


def test_pull(tool: Tool, host: str, image: str, tmp_path: Path) -> None:
    tool.run("push", image, f"{host}/a/b:x", "--plain-http")
    _, modules = tool.run("pull", f"{host}/a/b:x", f"oci:{tmp_path / 'new'}:x", "--store", "new-store", "--plain-http")
    assert sorted(modules & {*NEVER, *SANDBOX, *TREES, *ACCOUNTS, "builder.asfiles", "builder.oci.layer"}) == []
    assert json.loads((tmp_path / "new/index.json").read_text())["manifests"]


def test_tags(tool: Tool, host: str, image: str) -> None:
    tool.run("push", image, f"{host}/a/b:x", "--plain-http")
    printed, modules = tool.run("tags", f"{host}/a/b", "--plain-http")
    assert printed == "x\n"
    assert sorted(modules & {*NEVER, *SANDBOX, *TREES, *ACCOUNTS, *SENDING}) == []


def test_inspect_of_a_layout(tool: Tool, image: str) -> None:
    tool.run("inspect", image)  # reads the layers, once
    printed, modules = tool.run("inspect", image)
    assert "linux/" in printed
    assert (
        sorted(
            modules & {*NEVER, *HTTP, *SANDBOX, *ACCOUNTS, *SENDING, "builder.registry.client", "builder.look.costs"}
        )
        == []
    )
