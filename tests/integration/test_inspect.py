"""`ocibuild inspect` of the real image: the tables add up, and say what is known of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import Image

pytestmark = [pytest.mark.compile, pytest.mark.archive]


@pytest.fixture(scope="module")
def found(image: Image) -> Any:
    done = image.ocibuild("inspect", "wee", "--sizes", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _sum(rows: list[dict[str, Any]]) -> list[int]:
    return [sum(row[name] for row in rows) for name in ("files", "size", "compressed")]


def test_it_is_the_image_that_was_built(image: Image, found: Any) -> None:
    assert found["digest"] == image.digest
    assert found["cmd"] == ["python3"]
    blobs = image.layout / "blobs/sha256"
    for layer in found["layers"]:
        assert (blobs / layer["digest"].partition(":")[2]).stat().st_size == layer["compressed"]


def test_the_tables_add_up(found: Any) -> None:
    sizes, totals = found["sizes"], found["totals"]
    assert _sum(sizes["packages"]) == [totals["files"], totals["size"], totals["compressed"]]
    (nobody,) = [row for row in sizes["packages"] if row["name"] == "(no package)"]
    assert _sum(sizes["unowned"]) == _sum([nobody])
    (python,) = sizes["pythons"]
    assert _sum(python["parts"]) == _sum([python])


def test_it_knows_packages_and_parts(found: Any) -> None:
    rows = {row["name"]: row for row in found["sizes"]["packages"]}
    assert rows["libc6:amd64"]["size"] > 2_000_000
    (python,) = found["sizes"]["pythons"]
    parts = {(row["kind"], row["name"]): row for row in python["parts"]}
    needs = {one["name"]: one["package"] for one in parts["extension", "_ssl"]["needs"]}
    assert needs["libssl.so.3"] == "libssl3t64:amd64"
    missing = [one for row in python["parts"] for one in row["needs"] if one["path"] is None]
    assert missing == []
    assert parts["module", "asyncio"]["bytecode"] > 0
    assert parts["installed", "pip"]["size"] > 5_000_000
    # the interpreter is a package: nothing of it is left to nobody
    assert rows[f"ocibuild-{python['library'].rpartition('/')[2]}"]["size"] > 20_000_000


def test_the_text_is_for_people(image: Image) -> None:
    done = image.ocibuild("inspect", str(image.layout), "--sizes")
    assert done.returncode == 0, done.stderr
    assert "== Debian packages" in done.stdout
    assert "== python3.14 below /usr/local" in done.stdout
