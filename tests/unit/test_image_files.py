"""The two programs that become part of images: pip's wheel made of the installed pip, and what stands for ldconfig."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.python import ldconfig, rewheel
from builder.python.install import _makes_wheel, _without_launchers
from rootfs.architecture import Architecture
from rootfs.configure.ldsocache import Form, Library, to_bytes

INFO = "pip-9.8.dist-info"


def pip_in(site: Path) -> None:
    """A pip as pip installs itself."""
    files = {
        "pip/__init__.py": "__version__ = '9.8'\n",
        "pip/_vendor/REQUESTED": "a name that only means something beside the metadata",
        "pip/_vendor/distlib/t64.exe": "MZ",
        "pip/__pycache__/__init__.cpython-313.pyc": "",
        f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: pip\nVersion: 9.8\n",
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{INFO}/INSTALLER": "pip\n",
        f"{INFO}/REQUESTED": "",
        f"{INFO}/entry_points.txt": "[console_scripts]\npip = pip:main\n",
    }
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    lines = [f"{name},sha256=x{number},{len(text)}\n" for number, (name, text) in enumerate(files.items())]
    (site / INFO / "RECORD").write_text("".join(["../../../bin/pip,sha256=y,3\n", *lines, f"{INFO}/RECORD,,\n"]))


def test_the_wheel_is_what_was_installed_and_nothing_that_installing_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_in(tmp_path)
    _without_launchers(tmp_path)
    monkeypatch.setattr(rewheel, "_SITE", tmp_path)
    assert rewheel.pip_version() == "9.8"
    with rewheel.pip_wheel() as path, zipfile.ZipFile(path) as wheel:
        assert path.name == "pip-9.8-py3-none-any.whl"
        assert sorted(wheel.namelist()) == [
            f"{INFO}/METADATA",
            f"{INFO}/RECORD",
            f"{INFO}/WHEEL",
            f"{INFO}/entry_points.txt",
            "pip/__init__.py",
            "pip/_vendor/REQUESTED",
        ]
        assert wheel.read("pip/__init__.py") == (tmp_path / "pip/__init__.py").read_bytes()
        record = wheel.read(f"{INFO}/RECORD").decode().splitlines()
    assert sorted(line.partition(",")[0] for line in record) == sorted(wheel.namelist())
    assert "pip/__init__.py,sha256=JA_0Vc_7_Pv0y_U8YuGa4sSDchOQJqoSbGkYXxcFRTM,20" in record
    assert not path.exists()


def test_pip_installs_that_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own pip, made a wheel of and installed elsewhere, is the same pip."""
    import pip

    site = Path(pip.__file__).parents[1]
    monkeypatch.setattr(rewheel, "_SITE", site)
    with rewheel.pip_wheel() as wheel:
        argv = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--no-index",
            "--no-compile",
            "--target",
            str(tmp_path),
            str(wheel),
        ]
        subprocess.run(argv, check=True, capture_output=True)
    sources = {path.relative_to(site) for path in (site / "pip").rglob("*") if path.suffix != ".pyc" and path.is_file()}
    assert {path.relative_to(tmp_path) for path in (tmp_path / "pip").rglob("*") if path.is_file()} == sources
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], check=True, env={"PYTHONPATH": str(tmp_path)}, capture_output=True
    )
    assert str(tmp_path) in done.stdout.decode()


def test_without_pip_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewheel, "_SITE", tmp_path)
    with pytest.raises(FileNotFoundError, match="--without-pip"):
        rewheel.pip_version()


def test_launchers_of_windows_go_with_their_lines(tmp_path: Path) -> None:
    pip_in(tmp_path)
    _without_launchers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.exe")] == []
    record = (tmp_path / INFO / "RECORD").read_text()
    assert "t64.exe" not in record
    assert record.count("\n") == 10


def test_ensurepip_is_changed_only_where_it_has_a_place_for_it(tmp_path: Path) -> None:
    module = tmp_path / "__init__.py"
    module.write_text("_PACKAGE_NAMES = ('pip',)\n")
    assert not _makes_wheel(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["__init__.py"]
    module.write_text("def _get_pip_whl_path_ctx():\n    pass\ndef _get_pip_version():\n    pass\n")
    assert _makes_wheel(tmp_path)
    changed = module.read_text()
    compile(changed, "ensurepip", "exec")
    assert "pip_wheel as _get_pip_whl_path_ctx" in changed
    assert (tmp_path / "_rewheel.py").read_bytes() == Path(rewheel.__file__).read_bytes()


@pytest.mark.parametrize(
    ("name", "words"), [("amd64", "libc6,x86-64"), ("arm64", "libc6,AArch64"), ("riscv64", "libc6")]
)
def test_a_cache_is_listed(name: str, words: str) -> None:
    libraries = [Library(name=b"libz.so.1", path=b"/lib/libz.so.1"), Library(name=b"libm.so.6", path=b"/lib/libm.so.6")]
    cache = to_bytes(libraries, b"ldconfig (Debian) stable release version 2.41", Form.of(Architecture.parse(name)))
    listed = ldconfig.listing(cache)
    assert listed.startswith("2 libs found in cache `/etc/ld.so.cache'\n\tlibz.so.1 (" + words)
    assert listed.endswith(") => /lib/libm.so.6\n")
    with pytest.raises(struct.error):
        ldconfig.listing(b"")


def test_ctypes_finds_what_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expression that ctypes.util.find_library looks for, of CPython 3.14."""
    cache = to_bytes([Library(name=b"libz.so.1", path=b"/lib/libz.so.1")], b"x", Form.of(Architecture.parse("amd64")))
    found = re.search(rb"\s+(libz\.[^\s]+)\s+\(libc6,x86-64", ldconfig.listing(cache).encode())
    assert found is not None
    assert found[1] == b"libz.so.1"


def test_anything_but_the_list_is_refused() -> None:
    for argv in ([], ["-v"], ["-p", "x"]):
        with pytest.raises(SystemExit, match="only knows -p"):
            ldconfig.main(argv)


@pytest.mark.peer
def test_this_machines_cache_is_listed_as_ldconfig_lists_it(peer: Callable[[str], str]) -> None:
    cache = Path("/etc/ld.so.cache")
    if not cache.exists():
        pytest.skip("this machine has no cache")
    done = subprocess.run([peer("ldconfig"), "-p"], capture_output=True, text=True, check=True)
    theirs = [re.sub(r", (hwcap: \"[^\"]*\"|OS ABI: [^)]*)", "", line) for line in done.stdout.splitlines()[1:]]
    ours = ldconfig.listing(cache.read_bytes()).splitlines()[1:]
    assert ours == [line for line in theirs if line.startswith("\t")]
