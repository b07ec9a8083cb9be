"""The acceptance of an image with a sandbox that says what the interpreter would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builder.images import OpenedImage, open_image
from builder.oci.layout import write_layout
from builder.python.acceptance import image_checks
from builder.python.wheels import Target, fetch_wheels
from builder.tools import Tools
from builder.verify import verify_image
from rootfs.errors import BuildError
from rootfs.ports import Command
from rootfs.tree import Tree, directory, file, symlink
from tests.fakes.sandbox import Played, ScriptedSandbox
from tests.unit.test_images import image_of, tools_in

FACTS = "version 3.14.7\nabi cp314\nmachine x86_64\nglibc glibc 2.41\nfact pip\n"
CHECKS = image_checks((3, 14, 7), facts=("pip",))
ALL_GOOD = "".join(f"ok {check.name}\n" for check in CHECKS)
TREE = Tree([directory("usr"), directory("usr/bin"), symlink("bin", "usr/bin"), file("usr/bin/python3", b"")])


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return tools_in(tmp_path)


def opened(tree: Tree, tools: Tools, place: Path) -> OpenedImage:
    write_layout(place, tools.store, image_of(tree, tools).descriptor, ref_name="test")
    return open_image(str(place), tools)


def plays(facts: str, output: str, status: int = 0) -> ScriptedSandbox:
    """The facts come first; all later runs print `output`."""
    answers = iter([Played(output=facts)])
    return ScriptedSandbox(lambda _: next(answers, Played(output=output, exit=status)))


def test_all_good(tools: Tools, tmp_path: Path) -> None:
    sandbox = plays(FACTS, ALL_GOOD)
    image = opened(TREE, tools, tmp_path / "x")
    report = verify_image(image, replace(tools, sandbox=sandbox))
    report.require()
    assert report.summary == f"{image}: {len(CHECKS)} passed, 0 failed, 0 not tried"
    command: Command = sandbox.commands[1]
    assert command.argv[:2] == ("/bin/python3", "-c")
    assert command.environment == {"HOME": "/tmp", "PATH": "/bin", "A": "b=c"}
    assert not command.writable
    assert command.root.is_dir()


def test_failures_name_what_was_wanted_and_nothing_untried_is_passed(tools: Tools, tmp_path: Path) -> None:
    output = ALL_GOOD.replace("ok ssl\n", "FAILED ssl: ImportError: No module named '_ssl'\n| more\n")
    output = output.replace("ok NumPy wheel\n", "not tried NumPy wheel: no network\n")
    report = verify_image(opened(TREE, tools, tmp_path / "x"), replace(tools, sandbox=plays(FACTS, output, 1)))
    assert report.summary.endswith(f": {len(CHECKS) - 2} passed, 1 failed, 1 not tried")
    with pytest.raises(BuildError) as caught:
        report.require()
    assert caught.value.because == "FAILED ssl: ImportError: No module named '_ssl'; wants libssl"
    assert ("note", "| more") in tools.reporter.events  # type: ignore[attr-defined]
    value = json.loads(json.dumps(report.to_value()))
    assert value["passed"] is False
    assert {"name": "ssl", "status": "failed", "detail": "ImportError: No module named '_ssl'", "wants": "libssl"} in (
        value["checks"]
    )


def test_an_interpreter_that_ends_early_passes_nothing_more(tools: Tools, tmp_path: Path) -> None:
    first = f"ok {CHECKS[0].name}\n"
    report = verify_image(opened(TREE, tools, tmp_path / "x"), replace(tools, sandbox=plays(FACTS, first, 139)))
    assert report.summary.endswith(f": 1 passed, {len(CHECKS) - 1} failed, 0 not tried")
    assert "exit 139" in report.failed[0].detail


def test_left_out_modules_are_not_asked_for(tools: Tools, tmp_path: Path) -> None:
    image = opened(TREE, tools, tmp_path / "x")
    report = verify_image(image, replace(tools, sandbox=plays(FACTS, ALL_GOOD)), without=("sqlite3",))
    assert not {"sqlite3", "sqlite features"} & {result.check.name for result in report.results}


@pytest.mark.parametrize("said", ["", "Illegal instruction\n", "version x\n", "version 3.14.7\nabi cp314\n"])
def test_an_interpreter_that_does_not_run(tools: Tools, tmp_path: Path, said: str) -> None:
    with pytest.raises(BuildError, match="/bin/python3 does not run"):
        verify_image(opened(TREE, tools, tmp_path / "x"), replace(tools, sandbox=plays(said, "")))


def test_an_image_without_python(tools: Tools, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no Python on its PATH"):
        verify_image(opened(Tree([file("x", b"")]), tools, tmp_path / "x"), tools)


def test_python2_is_found_where_there_is_no_other(tools: Tools, tmp_path: Path) -> None:
    sandbox = plays(FACTS.replace("3.14.7", "2.7.18").replace("cp314", "cp27mu"), "")
    tree = Tree([directory("bin"), file("bin/python2", b"")])
    report = verify_image(opened(tree, tools, tmp_path / "x"), replace(tools, sandbox=sandbox))
    assert sandbox.commands[0].argv[0] == "/bin/python2"
    assert "UCS4" in {result.check.name for result in report.results}


def test_wheels_that_are_there_are_bound_and_those_that_cannot_be_had_are_a_reason(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(version=(3, 14), abi="cp314", machine="x86_64", glibc=41)
    cache = tmp_path / "wheels"
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    place, reason = fetch_wheels(target, cache)
    assert place is None
    assert "no matching distribution" in reason.lower()
    assert list(cache.iterdir()) == []
    sandbox = plays(FACTS, ALL_GOOD)
    image = opened(TREE, tools, tmp_path / "x")
    verify_image(image, replace(tools, sandbox=sandbox), wheels=cache)
    assert sandbox.commands[1].binds == ()
    assert reason[:40] in sandbox.commands[1].argv[2]
    (cache / target.name).mkdir()
    sandbox = plays(FACTS, ALL_GOOD)
    verify_image(image, replace(tools, sandbox=sandbox), wheels=cache)
    assert [bind.source for bind in sandbox.commands[1].binds] == [cache / target.name]
