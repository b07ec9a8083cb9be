"""Have CPython's toolchain ready and enter it, as a compile does: `python -m tests.bench.enter STORE`."""

from __future__ import annotations

import sys
from pathlib import Path

from builder.app import find_recipe, read_lock
from builder.execute import execute
from builder.plan import make_plan
from builder.settings import read_settings
from builder.wiring import open_tools
from builder.work import extracted, result
from rootfs.ports import Command
from tests.fakes.reporter import ListReporter


def main(store: Path) -> None:
    """Resolve (or read the lock), assemble, extract, and run one program in the toolchain."""
    with open_tools(read_settings({"store": str(store)}), ListReporter()) as tools:
        found = find_recipe("wee", lock=store / "wee.lock.toml")
        lock = read_lock(found, tools, locked=False, epoch=None)
        (step,) = [s for s in make_plan(found.recipe, lock).walk() if s.title == "assemble the toolchain rootfs"]
        execute(step, tools)
        root = extracted(result(step, tools.store), tools, "the toolchain")
        command = Command(root=root, argv=("gcc", "--version"), environment={"PATH": "/usr/bin"}, log=store / "log")
        if tools.sandbox.run(command).exit:
            raise SystemExit("gcc does not run in the toolchain")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
