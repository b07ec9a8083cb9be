"""Tables: rows of text in columns, for people; and text from outside made safe to show.

Law: pure; knows nothing of what it prints.
"""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Lines with columns as wide as they have to be, to the right but for those numbered in `left`."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "".join(
        "  ".join(
            f"{cell:<{width}}" if column in left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in lines
    )


def shown(text: str) -> str:
    """Text of an image for a terminal: what is not printable, or no character, as an escape (`\\x1b`)."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode-escape").decode("ascii") for one in text)
