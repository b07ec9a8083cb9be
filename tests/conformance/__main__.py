"""`python -m tests.conformance [--client NAME[=PATH]] [--only WORD] [--markdown FILE]`: the scoreboard."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conformance.clients import Client, known
from tests.conformance.running import Bench, Verdict
from tests.conformance.scenario import Scenario
from tests.conformance.scenarios import SCENARIOS

_SHOWN = {True: "pass", False: "FAIL", None: "n/a"}
Board = dict[tuple[str, str], Verdict]


def main(argv: Sequence[str] | None = None) -> int:
    """Ask each client each scenario; 0 also when some fail, for that is what was to be found out."""
    options = _parser().parse_args(argv)
    clients = _chosen(options.client)
    scenarios = [one for one in SCENARIOS if options.only in one.name]
    versions = {client.name: client.told_version() for client in clients}
    absent = [name for name, version in versions.items() if not version]
    if absent or not scenarios:
        print(f"error: cannot run {', '.join(absent)}" if absent else "error: no such scenario", file=sys.stderr)
        return 2
    board: Board = {}
    with tempfile.TemporaryDirectory(prefix="conformance-") as place:
        bench = Bench(Path(place))
        for scenario in scenarios:
            row = []
            for client in clients:
                verdict = board[scenario.name, client.name] = bench.run(scenario, client)
                row.append(f"{client.name} {_SHOWN[verdict.passed]} {verdict.seconds:.1f} s")
                if options.verbose and verdict.why:
                    print(f"  {client.name}: {verdict.why}\n{verdict.output}", file=sys.stderr)
            print(f"{scenario.name}: {', '.join(row)}", flush=True)
    for client in clients:
        print(_total(client.name, board))
    if options.markdown:
        Path(options.markdown).write_text(markdown(scenarios, versions, board))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance", description="How clients fare with registries."
    )
    parser.add_argument(
        "--client", action="append", metavar="NAME[=PATH]", help="ocibuild, crane, skopeo, regctl, oras; several times"
    )
    parser.add_argument("--only", default="", metavar="WORD", help="scenarios whose name has this word")
    parser.add_argument("--markdown", metavar="FILE", help="write the scoreboard there as well")
    parser.add_argument("--verbose", action="store_true", help="print why a client failed, and what it said")
    return parser


def _chosen(words: Sequence[str] | None) -> list[Client]:
    paths = dict(word.partition("=")[::2] for word in words or ())
    clients = known({name: path for name, path in paths.items() if path})
    if unknown := set(paths) - set(clients):
        raise SystemExit(f"error: no such client: {', '.join(sorted(unknown))} (there are {', '.join(clients)})")
    return [clients[name] for name in paths] if paths else list(clients.values())


def _total(name: str, board: Board) -> str:
    verdicts = [verdict.passed for (_, client), verdict in board.items() if client == name]
    return (
        f"{name}: {verdicts.count(True)} passed, {verdicts.count(False)} failed, {verdicts.count(None)} not applicable"
    )


def markdown(scenarios: Sequence[Scenario], versions: Mapping[str, str], board: Board) -> str:
    """The scoreboard as a page."""
    clients = list(versions)
    lines = [_HEAD.format(today=dt.datetime.now(dt.UTC).date())]
    lines += _table(["client", "version", "passed", "failed", "not applicable"], _totals(versions, board))
    lines += ["", "## Scenarios", ""]
    rows = []
    for one in scenarios:
        shown = [_SHOWN[board[one.name, client].passed] for client in clients]
        rows.append([one.name, *shown, f"{one.task}: {one.does}", one.holds, one.source])
    lines += _table(["scenario", *clients, "what the registry does", "what must hold", "source"], rows)
    lines += ["", "## Why", ""]
    reasons = [
        [name, client, _SHOWN[verdict.passed], f"`{_cell(verdict.why)}`"]
        for (name, client), verdict in board.items()
        if not verdict.passed
    ]
    lines += _table(["scenario", "client", "", "what was seen"], reasons)
    return "\n".join(lines) + "\n"


def _totals(versions: Mapping[str, str], board: Board) -> list[list[str]]:
    rows = []
    for name, version in versions.items():
        verdicts = [verdict.passed for (_, client), verdict in board.items() if client == name]
        rows.append([name, version, *(str(verdicts.count(one)) for one in (True, False, None))])
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("`", "'") or "-"


_HEAD = """\
# Scoreboard of registry clients

How clients fare with a registry that does what registries do. Each scenario is a registry of its own on the loopback
([how to run it](../how-to/test-your-registry-client.md)), and each row one run of one command, with the client's own
defaults. A FAIL is what was seen here, with these versions; many are decisions and not bugs. `n/a`: the client never
makes the request in question, or lacks the verb.

Made on {today} by `python -m tests.conformance --markdown docs/reference/scoreboard.md`.
"""

if __name__ == "__main__":
    sys.exit(main())
