"""What is taken out of the build variables, and what has to stay. The lines are those of real builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.python.cleaning import clean_sysconfig, cleaned

INSTEAD = "/usr/local/lib/python3.14/config"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("'-O3 -Wall -g0 -fno-semantic-interposition -std=c11'", "'-O3 -Wall -g0 -std=c11'"),
        ("'-Wl,--strip-all -flto=auto -fuse-linker-plugin -fno-fat-lto-objects'", "''"),
        ("'-fprofile-use -fprofile-correction -Wno-missing-profile -flto-partition=balanced'", "''"),
        ("'-O3 -fprofile-instr-use=/build/code.profclangd -I.'", "'-O3 -I.'"),
        ("'-fprofile-generate -fprofile-update=atomic'", "''"),
        ("'-frandom-seed=ocibuild -lm'", "' -lm'"),
        ("'-fno-plt -fno-reorder-blocks-and-partition' 'gcc -no-pie -Wl,-q'", "'' 'gcc'"),
        ("'-flto=thin'", "''"),
        ('"abs_srcdir": "/build",', f'"abs_srcdir": "{INSTEAD}",'),
        ("'/build/Modules/expat.h'", f"'{INSTEAD}/Modules/expat.h'"),
        ("'-I/build/Include -L/build -lm'", f"'-I{INSTEAD}/Include -L{INSTEAD} -lm'"),
        ("'LD_LIBRARY_PATH=/build'", f"'LD_LIBRARY_PATH={INSTEAD}'"),
    ],
)
def test_ours_is_taken_out(text: str, clean: str) -> None:
    assert cleaned(text, INSTEAD) == clean
    assert cleaned(clean, INSTEAD) == clean


@pytest.mark.parametrize(
    "text",
    [
        "'-fno-strict-overflow -Wsign-compare -DNDEBUG -g -O3 -Wall'",
        "'-fvisibility=hidden -fwrapv -fPIC -fstack-protector'",
        "'UPDATE_FILE': './Tools/build/update_file.py'",
        "'build/scripts-3.13/pydoc3.13'",
        "'/builds/x /buildroot'",
        "'/usr/lib/build/x'",
        "'-Wl,-quick -Wl,-q-x'",
        "'-Wl,--strip-all-of-it -no-pieces -flton'",
        "'--without-static-libpython --with-lto'",
    ],
)
def test_what_is_not_ours_stays(text: str) -> None:
    assert cleaned(text, INSTEAD) == text


def test_both_files_of_variables_are_rewritten_and_no_other(tmp_path: Path) -> None:
    library = tmp_path / "python3.14"
    library.mkdir()
    names = ("_sysconfigdata__linux_x86_64-linux-gnu.py", "_sysconfig_vars__linux_x86_64-linux-gnu.json", "other.py")
    for name in names:
        (library / name).write_text("'/build' '-O3 -flto'")
    clean_sysconfig(library)
    assert [(library / name).read_text() for name in names] == [
        "'/usr/local/lib/python3.14/config' '-O3'",
        "'/usr/local/lib/python3.14/config' '-O3'",
        "'/build' '-O3 -flto'",
    ]
