"""What the command line costs before it does anything: `python -m tests.bench.startup`. To be under 150 ms."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.timing import Contender, compare, machine, table

TOOL = str(Path(sys.executable).with_name("ocibuild"))

if __name__ == "__main__":
    contenders = [
        Contender(name="python -c pass", argv=[sys.executable, "-c", "pass"]),
        Contender(name="ocibuild --version", argv=[TOOL, "--version"]),
        Contender(name="ocibuild settings", argv=[TOOL, "settings"]),
    ]
    print(machine())
    print(table(compare(contenders, rounds=21), base="python -c pass"))
