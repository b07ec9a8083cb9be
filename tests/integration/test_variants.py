"""What is led by the shipped profile: wee-lto and, of the same compile, wee-nano. Nothing is trained here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.oci.layout import is_attached, read_layout
from builder.oci.manifest import Manifest
from tests.integration.conftest import Image

pytestmark = [pytest.mark.archive, pytest.mark.compile]

MB = 1_000_000

ARRANGED_AGAIN = """
import sys
from dataclasses import replace

from builder.app import read_lock
from builder.cli.start import begin
from builder.execute import execute
from builder.plan import make_plan
from builder.wiring import open_tools

found, settings, reporter = begin("recipes/wee-lto.toml", ("python.layout=bolt",), None, {})
with open_tools(settings, reporter) as tools:
    lock = read_lock(found, tools, locked=True, epoch=None)
    step = next(step for step in make_plan(found.recipe, lock).walk() if step.kind == "arrange")
    for more in ([], ["-thread-count=1"], ["-thread-count=2"], ["-thread-count=8"]):
        arrange = [*step.parameters["arrange"], *more]
        print(execute(replace(step, parameters={**step.parameters, "arrange": arrange}), tools))
"""


@pytest.fixture(scope="module")
def lto(image: Image) -> Path:
    """The layout of wee-lto, and what the build said, beside the session's plain image in its user's store."""
    done = image.ocibuild("recipe", "recipes/wee-lto.toml")
    assert done.returncode == 0, done.stderr
    assert "shipped as" in done.stderr
    assert "compile: train" not in done.stderr
    return image.clone / "dist/wee-lto"


def _compressed(layout: Path) -> int:
    (descriptor,) = (one for one in read_layout(layout).manifests if not is_attached(one))
    manifest = Manifest.parse((layout / "blobs/sha256" / descriptor.digest.hex).read_bytes())
    return sum(layer.size for layer in manifest.layers)


def test_wee_lto_passes_and_is_small(image: Image, lto: Path) -> None:
    done = image.ocibuild("verify", str(lto))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
    assert _compressed(lto) <= 30 * MB


@pytest.mark.sweep
def test_an_interpreter_is_laid_out_the_same_on_any_number_of_threads(image: Image, ordinary_python: Path) -> None:
    done = image.ocibuild("recipe", "recipes/wee-lto.toml", "--set", "python.layout=bolt")
    assert done.returncode == 0, done.stderr
    assert "compile: lay out" in done.stderr
    assert "compile: train" not in done.stderr
    done = image.user.run([ordinary_python, "-c", ARRANGED_AGAIN], cwd=image.clone, **image.mirrors)
    assert done.returncode == 0, done.stderr
    made = done.stdout.split()
    assert len(made) == 4
    assert len(set(made)) == 1


def test_wee_nano_is_of_the_same_compile_passes_and_is_small(image: Image, lto: Path) -> None:
    done = image.ocibuild("recipe", "recipes/wee-nano.toml")
    assert done.returncode == 0, done.stderr
    assert "compile: make" not in done.stderr, "the interpreter is that of wee-lto"
    nano = image.clone / "dist/wee-nano"
    checked = image.ocibuild("verify", str(nano))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert _compressed(nano) <= 12 * MB
    told = image.ocibuild("inspect", str(nano), "--sizes", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)
