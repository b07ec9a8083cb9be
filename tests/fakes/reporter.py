"""A Reporter that remembers."""

from __future__ import annotations


class ListReporter:
    """`rootfs.ports.Reporter` that keeps every event as a tuple."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def begin(self, task: str, total: int | None = None, unit: str = "B") -> None:
        self.events.append(("begin", task, total, unit))

    def advance(self, task: str, amount: int) -> None:
        self.events.append(("advance", task, amount))

    def finish(self, task: str, result: str = "done") -> None:
        self.events.append(("finish", task, result))

    def note(self, text: str) -> None:
        self.events.append(("note", text))
