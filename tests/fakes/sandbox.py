"""A Sandbox that runs nothing: a script says what each command would do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rootfs.ports import Command, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a command shall have printed, and its exit status."""

    output: str = ""
    exit: int = 0


class ScriptedSandbox:
    """`rootfs.ports.Sandbox` that asks `play` (which may write into the command's binds) and keeps every command."""

    def __init__(self, play: Callable[[Command], Played] = lambda _: Played()) -> None:
        self.play = play
        self.commands: list[Command] = []

    def run(self, command: Command) -> Outcome:
        self.commands.append(command)
        played = self.play(command)
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with command.log.open("w", encoding="utf-8") as log:
            for line in played.output.splitlines(keepends=True):
                log.write(line)
                if command.on_line is not None:
                    command.on_line(line.rstrip("\r\n"))
        return Outcome(exit=played.exit, log=command.log, seconds=0.0)

    def remove(self, directory: Path) -> None:
        if directory.exists():
            shutil.rmtree(directory)
