"""The kit can tell a client that does nothing, or gives up, from a good one; and the scoreboard says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance import __main__ as kit
from tests.conformance.checks import refused, refused_without_telling
from tests.conformance.clients import Client, known
from tests.conformance.running import Bench, Verdict
from tests.conformance.scenario import Scenario
from tests.conformance.scenarios import SCENARIOS
from tests.peers.registry import PASSWORD

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
SOME = tuple(one for one in SCENARIOS if len(one.quirks) == 1 and one.sample == "small")
SAFE = (refused, refused_without_telling)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("conformance"))


def client(*words: str) -> Client:
    """A client that does this, whatever it is asked."""
    return Client(name="x", program=words, version=(), tasks=dict.fromkeys(("push", "pull", "copy", "tags"), ()))


def test_names_and_pairs_are_one_of_a_kind() -> None:
    assert len(BY_NAME) == len(SCENARIOS)


@pytest.mark.parametrize("scenario", SOME, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_who_only_says_that_all_is_well_passes_nothing(scenario: Scenario, bench: Bench) -> None:
    assert not bench.run(scenario, client("true")).passed


def test_who_gives_up_is_safe_at_most(bench: Bench) -> None:
    verdicts = {one.name: bench.run(one, client("false")).passed for one in SOME}
    assert {name for name, passed in verdicts.items() if passed} <= {one.name for one in SOME if one.check in SAFE}


def test_a_task_that_a_client_has_not(bench: Bench) -> None:
    without = Client(name="x", program=("true",), version=(), tasks={})
    assert bench.run(BY_NAME["pull"], without) == Verdict(passed=None, why="it does not pull")


def test_who_prints_the_password_is_found_out(bench: Bench, peer: Callable[[str], str]) -> None:
    program = ("sh", "-c", f'echo {PASSWORD!r}; exec {peer("skopeo")} "$@"', "skopeo")
    leaky = Client(name="x", program=program, version=(), tasks=known({})["skopeo"].tasks)
    assert bench.run(BY_NAME["Basic"], leaky).why == "a secret is in the output"
    assert bench.run(BY_NAME["Basic"], known({"skopeo": peer("skopeo")})["skopeo"]).passed


def test_the_scoreboard(tmp_path: Path, peer: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "board.md"
    argv = ["--client", f"skopeo={peer('skopeo')}", "--only", "pull an index", "--markdown", str(page)]
    assert kit.main(argv) == 0
    assert "skopeo: 1 passed, 0 failed, 0 not applicable" in capsys.readouterr().out
    assert "| pull an index | pass |" in page.read_text()
    assert kit.main(["--client", "skopeo=/nowhere", "--only", "pull"]) == 2
    assert "cannot run skopeo" in capsys.readouterr().err
