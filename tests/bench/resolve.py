"""Resolving from a warm index, in process: `python -m tests.bench.resolve`. To be under 0.3 s for the toolchain."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from builder.python.packages import packages_for
from builder.settings import read_settings
from rootfs.architecture import Architecture
from rootfs.archive import read_index, read_release
from rootfs.debian.solve import solve
from rootfs.store import DiskStore
from rootfs.suite import standard_suites
from rootfs.transport import HttpTransport
from tests.bench.timing import machine
from tests.fakes.reporter import ListReporter

if __name__ == "__main__":
    with TemporaryDirectory() as place, HttpTransport() as transport:
        store, mirrors = DiskStore(Path(place)), read_settings({}).mirrors
        now = int(time.time())
        releases = [
            (suite, read_release(suite, transport=transport, store=store, mirrors=mirrors, now=now))
            for suite in standard_suites("trixie", ["main"])
        ]
        times = []
        for _ in range(8):
            began = time.perf_counter()
            index = read_index(
                releases,
                Architecture.parse("amd64"),
                transport=transport,
                store=store,
                mirrors=mirrors,
                reporter=ListReporter(),
            )
            packages = solve(index, packages_for("trixie").toolchain).packages
            times.append(time.perf_counter() - began)
        print(machine())
        print(f"{len(packages)} packages; cold {times[0]:.2f} s, warm median {statistics.median(times[1:]):.3f} s")
