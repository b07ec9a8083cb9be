"""Which part of which CPython a file is: layouts of `make install`, of a 2.7, and of Debian's own packages."""

from __future__ import annotations

import pytest

from builder.python.anatomy import Part, parts, pythons
from rootfs.tree import Tree, file, symlink

L = "usr/local/lib/python3.14"


def part_of(path: str, *others: str) -> str | None:
    """`kind name` of a path in a tree with the given libraries."""
    tree = Tree([file(path, b""), *(file(f"{other}/os.py", b"") for other in others or (L,))]).with_parents()
    found = parts(tree, pythons(tree)).get(path)
    return f"{found[1].kind} {found[1].name}" if found else None


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("usr/local/bin/python3.14", "interpreter interpreter"),
        ("usr/local/bin/python", "interpreter interpreter"),
        ("usr/local/lib/libpython3.14.so.1.0", "interpreter interpreter"),
        ("usr/local/lib/libpython3.so", "interpreter interpreter"),
        ("usr/local/bin/python3.14-config", "headers headers"),
        ("usr/local/include/python3.14/internal/a.h", "headers headers"),
        ("usr/local/lib/pkgconfig/python-3.14-embed.pc", "headers headers"),
        ("usr/local/bin/pip3.14", "installed pip"),
        (f"{L}/site-packages/pip/_vendor/x.py", "installed pip"),
        (f"{L}/site-packages/pip-26.1.dist-info/RECORD", "installed pip"),
        (f"{L}/site-packages/__pycache__/six.cpython-314.pyc", "installed six"),
        (f"{L}/site-packages/six.py", "installed six"),
        (f"{L}/ensurepip/_bundled/pip-26.1-py3-none-any.whl", "wheel ensurepip/_bundled"),
        (f"{L}/ensurepip/__init__.py", "module ensurepip"),
        (f"{L}/ssl.py", "module ssl"),
        (f"{L}/__pycache__/ssl.cpython-314.opt-1.pyc", "module ssl"),
        (f"{L}/email/mime/text.py", "module email"),
        (f"{L}/lib-dynload/_ssl.cpython-314-x86_64-linux-gnu.so", "extension _ssl"),
        (f"{L}/configparser.py", "module configparser"),
        (f"{L}/config-3.14-x86_64-linux-gnu/Makefile", "other config-3.14-x86_64-linux-gnu"),
        (f"{L}/LICENSE.txt", "other LICENSE.txt"),
        ("usr/local/bin/pydoc3.14", "other programs"),
        ("usr/local/bin/python3.13", None),
        ("usr/local/include/python3.13/a.h", None),
        ("usr/local/bin/pythonic", None),
        ("usr/local/lib/python3/dist-packages/apt/x.py", "installed apt"),
        ("usr/bin/python3.14", None),
        ("usr/local/share/x", None),
    ],
)
def test_a_path_is_of_a_part(path: str, part: str | None) -> None:
    assert part_of(path) == part


def test_python_2_has_its_bytecode_beside_its_modules() -> None:
    old = "usr/local/lib/python2.7"
    assert part_of(f"{old}/ssl.pyc", old) == "module ssl"
    assert part_of(f"{old}/lib-dynload/_ssl.so", old) == "extension _ssl"
    assert part_of("usr/local/bin/python2", old) == "interpreter interpreter"
    assert part_of("usr/local/bin/python3", old) is None


def test_each_of_several_has_its_own() -> None:
    paths = [f"{L}/os.py", f"{L}t/os.py", "usr/lib/python3.13/os.py", "usr/bin/python3.13", "usr/local/bin/python3.14t"]
    tree = Tree([*(file(path, b"") for path in paths), symlink("usr/bin/python3", "python3.13")]).with_parents()
    known = pythons(tree)
    assert [str(one) for one in known] == [
        "python3.13 below /usr",
        "python3.14 below /usr/local",
        "python3.14t below /usr/local",
    ]
    claims = parts(tree, known)
    assert claims["usr/bin/python3"] == (known[0], Part(kind="interpreter", name="interpreter"))
    assert claims[f"{L}t/os.py"] == (known[2], Part(kind="module", name="os"))
    assert set(claims) == {path for path in tree if "." in path.rpartition("/")[2] or path == "usr/bin/python3"} - {
        "usr/lib/python3.13",
        L,
        f"{L}t",
    }


def test_an_image_without_python_has_none() -> None:
    tree = Tree([file("usr/lib/python3/os.py", b""), file("os.py", b"")])
    assert pythons(tree) == ()
    assert parts(tree, ()) == {}
