"""The child stands alone, and the parts of it that need no namespace."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rootfs.sandbox import child


def test_it_imports_the_standard_library_only() -> None:
    imported = set()
    for node in ast.walk(ast.parse(Path(child.__file__).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


def test_nothing_is_imported_after_the_old_root_is_gone() -> None:
    functions = [n for n in ast.walk(ast.parse(Path(child.__file__).read_text())) if isinstance(n, ast.FunctionDef)]
    assert not [n for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)]


def test_orders_that_cannot_be_read_are_reported() -> None:
    run = subprocess.run(
        [sys.executable, "-I", "-S", child.__file__, "1"], input=b"not json", capture_output=True, check=False
    )
    assert run.returncode == 1
    assert run.stdout.startswith(b'["internal", 0, "JSONDecodeError')
    assert run.stderr == b""


def test_a_status_of_wait_becomes_one_of_a_shell() -> None:
    assert child.exit_status(3 << 8) == 3
    assert child.exit_status(9) == 137


def test_mount_points_are_those_at_and_below() -> None:
    assert "/proc" in child.mount_points("/proc")
    assert all(point.startswith("/proc") for point in child.mount_points("/proc"))
    assert child.mount_points("/pro") == []


def test_a_directory_is_removed_with_all_that_is_in_it_and_nothing_else(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    (top / "a/file").touch()
    (top / "a/dangling").symlink_to("nowhere")
    (top / "a/leads-out").symlink_to(outside)
    child.remove(str(top))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "outside"]


def test_a_removal_that_fails_says_where(tmp_path: Path) -> None:
    with pytest.raises(child.Refusal) as caught:
        child.remove(str(tmp_path / "gone"))
    assert caught.value.args[0::2] == ("remove", str(tmp_path / "gone"))
