"""Runs a target under atheris, from a corpus made of the target's seeds."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main(name: str) -> None:
    """Fuzz the target of this name; the command line is libFuzzer's. The process ends in here."""
    import atheris

    ours = ["rootfs.debian", "rootfs.tarstream", "rootfs.tree", "builder.oci", "builder.registry"]
    with atheris.instrument_imports(include=ours):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="ocibuild-fuzz-") as corpus:
        for number, seed in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], f"-max_len={target.longest}", *sys.argv[1:], corpus], target.run)
        atheris.Fuzz()
