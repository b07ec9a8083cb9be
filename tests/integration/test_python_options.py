"""Options of `[python]` that need no compile of their own: what is left out, and the toolchains of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.app import find_recipe, read_lock
from builder.execute import execute
from builder.plan import make_plan
from builder.settings import read_settings
from builder.wiring import open_tools
from rootfs.ports import read_blob
from rootfs.tree import Tree
from tests.fakes.reporter import ListReporter
from tests.integration.conftest import RECIPE, Image

pytestmark = pytest.mark.archive

GONE = ("compression.zstd", "curses.panel", "sqlite3", "ctypes")


@pytest.mark.compile
def test_an_image_without_modules_passes_its_acceptance(image: Image) -> None:
    names = [f"'{name}'" for name in GONE]
    left_out = ("--set", "name=less", "--set", f"python.without=[{', '.join(names)}]")
    built = image.ocibuild("recipe", RECIPE, *left_out, "--lock", "less.lock.toml")
    assert built.returncode == 0, built.stderr
    assert "compile: make" not in built.stderr
    without = [word for name in GONE for word in ("--without", name)]
    checked = image.ocibuild("verify", str(image.clone / "dist/less"), *without)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_clang_and_tk_are_configured_without_a_script_and_without_a_32_bit_library(
    tmp_path: Path, debian_mirror: str, debian_security_mirror: str
) -> None:
    flags = {"store": str(tmp_path), "mirror": debian_mirror, "security_mirror": debian_security_mirror}
    wanted = ["python.compiler=clang", "python.modules=['tkinter']"]
    found = find_recipe(RECIPE, overrides=wanted, lock=tmp_path / "lock.toml")
    with open_tools(read_settings(flags), ListReporter()) as tools:
        lock = read_lock(found, tools, locked=False, epoch=None)
        steps = [step for step in make_plan(found.recipe, lock).walk() if step.kind == "rootfs"]
        trees = {
            step.parameters["set"]: Tree.from_bytes(read_blob(tools.store, execute(step, tools))) for step in steps
        }
    programs = ("clang", "clang++", "ld.lld", "llvm-ar", "llvm-profdata")
    assert [name for name in programs if f"usr/lib/llvm-19/bin/{name}" not in trees["toolchain"]] == []
    assert any(path.endswith("/libclang_rt.profile-x86_64.a") for path in trees["toolchain"])
    assert "usr/lib32" not in trees["toolchain"]
    assert any("/libtk8.6.so" in path for path in trees["runtime"])
