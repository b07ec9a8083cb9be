"""Debian's machine-readable copyright files -> SPDX expressions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from license_expression import get_spdx_licensing

from builder.trust.licences import licence_of

LICENSING = get_spdx_licensing()
HEADER = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n"


def said(*fields: str, more: str = "") -> str:
    """A copyright file with one Files paragraph for each License field."""
    stanzas = (f"Files: {at}\nCopyright: someone\nLicense: {field}\n" for at, field in enumerate(fields))
    return "\n".join((HEADER, *stanzas, more))


@pytest.mark.parametrize(
    ("field", "expression"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-3.0+", "GPL-3.0-or-later"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("GFDL-1.3", "GFDL-1.3-only"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("zlib", "Zlib"),
        ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0-Perl"),
        ("GPL-2+ and Expat", "GPL-2.0-or-later AND MIT"),
        ("GPL-2+ or Expat, and zlib", "(GPL-2.0-or-later OR MIT) AND Zlib"),
        ("GPL-3+ with Bison exception", "GPL-3.0-or-later WITH Bison-exception-2.2"),
        ("GPL-2+ with Foo exception", "LicenseRef-src-GPL-2-with-Foo-exception"),
        ("public-domain", "LicenseRef-src-public-domain"),
        ("GPL-7+", "LicenseRef-src-GPL-7"),
    ],
)
def test_a_field(field: str, expression: str) -> None:
    found = licence_of(said(field), "src")
    assert found is not None
    assert found.expression == expression
    assert {name for name, _ in found.texts} == {word for word in expression.split() if word.startswith("LicenseRef")}


def test_all_files_count_each_licence_once() -> None:
    found = licence_of(said("GPL-2+", "Expat", "GPL-2+ and Expat", "GPL-1+ or Artistic"), "x")
    assert found is not None
    assert found.expression == "(GPL-1.0-or-later OR Artistic-1.0-Perl) AND GPL-2.0-or-later AND MIT"


def test_the_text_of_an_unknown_licence_is_taken_from_where_it_stands() -> None:
    found = licence_of(said("mine", more="License: mine\n Do what\n .\n you like.\n"), "x")
    assert found is not None
    assert found.texts == (("LicenseRef-x-mine", "Do what\n\nyou like."),)
    found = licence_of(said("mine\n Here it is."), "x")
    assert found is not None
    assert found.texts == (("LicenseRef-x-mine", "Here it is."),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "This package was debianized by hand.\nIt is free software: GPL-2+\n",
        HEADER,
        HEADER.replace("1.0", "2.0") + "\nFiles: *\nLicense: GPL-2\n",
        said("GPL-2").replace("License: GPL-2", "Copyright-Too: x"),
        "\n continued\n",
        said("GPL-2") + "\nno field here\n",
    ],
)
def test_no_licence_is_guessed(text: str) -> None:
    assert licence_of(text, "x") is None


@settings(deadline=None)
@given(st.lists(st.text(alphabet="GPL-2+ andorwith,()BSDé\t.MIT", max_size=40), min_size=1, max_size=4))
def test_whatever_is_said_the_result_is_an_expression(fields: list[str]) -> None:
    found = licence_of(said(*fields), "x")
    if found is not None:
        LICENSING.parse(found.expression)
        names = {name for name, _ in found.texts}
        assert names <= set(re.split(r"[ ()]+", found.expression))
