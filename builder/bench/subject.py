"""Subject: what the user calls IMAGE on the command line -> an image to measure.

Law: knows the words and where images are found; runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.bench.worker import Subject
from builder.execute import DEFAULT_PATH
from builder.images import open_image, root_of
from builder.tools import Tools
from rootfs.errors import UsageError

_WORDS = re.compile(r"(?:(?P<name>[A-Za-z0-9._+-]+)=)?(?P<image>[^#]+)(?:#(?P<python>.+))?\Z")
_DIRECTORY = "dir:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """`[NAME=]IMAGE[#PYTHON]`: `image` as `builder.images` takes it, or `dir:PATH`, a root directory."""

    name: str
    image: str
    python: str

    @classmethod
    def parse(cls, text: str) -> Named:
        """Without a name, the last part of IMAGE is one; without PYTHON, python3 of its PATH is meant."""
        match = _WORDS.match(text)
        if match is None:
            raise UsageError(f"not an image: {text!r}", hint="write IMAGE, NAME=IMAGE or IMAGE#/usr/bin/python3")
        name = match["name"] or match["image"].removeprefix(_DIRECTORY).rstrip("/").rpartition("/")[2]
        return cls(name=name, image=match["image"], python=match["python"] or "python3")


def open_subjects(texts: Sequence[str], tools: Tools) -> tuple[Subject, ...]:
    """The images, in their order; UsageError when two have one name, or there is no such image."""
    wanted = [Named.parse(text) for text in texts]
    names = [named.name for named in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two images are called {name}", hint=f"name them: a={name} b={name}")
    return tuple(_open(named, tools) for named in wanted)


def _open(named: Named, tools: Tools) -> Subject:
    environment = {"PATH": DEFAULT_PATH}
    if named.image.startswith(_DIRECTORY):
        root = Path(named.image.removeprefix(_DIRECTORY))
        if not root.is_dir():
            raise UsageError(f"no such directory: {root}", hint="`ocibuild rootfs SUITE --output DIR` makes one")
    else:
        image = open_image(named.image, tools)
        environment |= image.environment
        root = root_of(image, tools)
    return Subject(name=named.name, root=root, python=named.python, environment=environment)
