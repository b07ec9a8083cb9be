"""ocibuild passes every scenario."""

from __future__ import annotations

import pytest

from tests.conformance.clients import known
from tests.conformance.running import Bench
from tests.conformance.scenario import Scenario
from tests.conformance.scenarios import SCENARIOS


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("conformance"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_scenario(scenario: Scenario, bench: Bench) -> None:
    verdict = bench.run(scenario, known({})["ocibuild"])
    assert verdict.passed, f"{scenario.task}: the registry {scenario.does}\n{verdict.why}\n{verdict.output}"
