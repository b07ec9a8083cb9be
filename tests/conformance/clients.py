"""The clients that can be asked, each as a row of data: how it pushes a layout, pulls into one, copies and lists tags.

A word of a command may hold {layout} (a directory), {tag}, {host}, {reference} (`host/repository:tag`), {other} (the
same in another repository) and {repository} (`host/repository`); a word that begins with `?` is for plain http only,
one with `!` for https.
A task without a row is one the client does not have.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
Words = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A command line: `program`, and the words after it for each task and for its version."""

    name: str
    program: Words
    version: Words
    tasks: Mapping[str, Words]

    def argv(self, task: str, values: Mapping[str, str], *, tls: bool) -> list[str]:
        """The command of a task."""
        words = [word for word in self.tasks[task] if not word.startswith("?" if tls else "!")]
        return [*self.program, *(word.lstrip("?!").format(**values) for word in words)]

    def told_version(self) -> str:
        """What its file name, or it itself, says its version is; "" when it does not run."""
        try:
            done = subprocess.run([*self.program, *self.version], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:
            return ""
        said = [Path(self.program[0]).name.rpartition("-")[2], *(done.stdout + done.stderr).split()]
        numbers = [word.removeprefix("v") for word in said if word.removeprefix("v")[:1].isdigit()]
        return numbers[0] if numbers else "?"


def environment(home: Path, **extra: str) -> dict[str, str]:
    """A user who has nothing but this home."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    places = {
        "HOME": home,
        "TMPDIR": home,
        "XDG_CACHE_HOME": home / "cache",
        "XDG_CONFIG_HOME": home / "config",
        "XDG_RUNTIME_DIR": home / "run",
        "DOCKER_CONFIG": home / ".docker",
        "REGISTRY_AUTH_FILE": home / ".docker/config.json",
    }
    return {**kept, **{name: str(place) for name, place in places.items()}, **extra}


def known(programs: Mapping[str, str]) -> dict[str, Client]:
    """The clients by name; `programs` are paths that are not those of PATH, or of what tests/peers/build has built."""
    rows = {
        name: Client(name=name, program=(programs.get(name) or _found(name),), version=version, tasks=tasks)
        for name, (version, tasks) in _OTHERS.items()
    }
    ours = (programs["ocibuild"],) if "ocibuild" in programs else (sys.executable, "-m", "builder")
    return {"ocibuild": Client(name="ocibuild", program=ours, version=("--version",), tasks=_OURS), **rows}


def _found(name: str) -> str:
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocibuild-peers/bin"
    return next((str(path) for path in sorted(place.glob(f"{name}-v*"), reverse=True)), name)


_OURS = {
    "push": ("push", "?--plain-http", "{layout}:{tag}", "{reference}"),
    "pull": ("pull", "?--plain-http", "{reference}", "oci:{layout}:{tag}"),
    "copy": ("copy", "?--plain-http", "{reference}", "{other}"),
    "tags": ("tags", "?--plain-http", "{repository}"),
}
_SKOPEO = ("copy", "--insecure-policy", "--all", "--preserve-digests")
_REGCTL = ("?--host", "?reg={host},tls=disabled", "image", "copy", "--referrers")
_FROM = ("?--from-plain-http", "!--from-plain-http=false")
_TO = ("?--to-plain-http", "!--to-plain-http=false")
_OTHERS: dict[str, tuple[Words, dict[str, Words]]] = {
    "crane": (
        ("version",),
        {
            "push": ("push", "?--insecure", "{layout}", "{reference}"),
            "pull": ("pull", "?--insecure", "--format=oci", "{reference}", "{layout}"),
            "copy": ("copy", "?--insecure", "{reference}", "{other}"),
            "tags": ("ls", "?--insecure", "{repository}"),
        },
    ),
    "skopeo": (
        ("--version",),
        {
            "push": (*_SKOPEO, "?--dest-tls-verify=false", "oci:{layout}:{tag}", "docker://{reference}"),
            "pull": (*_SKOPEO, "?--src-tls-verify=false", "docker://{reference}", "oci:{layout}:{tag}"),
            "copy": (
                *_SKOPEO,
                "?--src-tls-verify=false",
                "?--dest-tls-verify=false",
                "docker://{reference}",
                "docker://{other}",
            ),
            "tags": ("list-tags", "?--tls-verify=false", "docker://{repository}"),
        },
    ),
    "regctl": (
        ("version",),
        {
            "push": (*_REGCTL, "ocidir://{layout}:{tag}", "{reference}"),
            "pull": (*_REGCTL, "{reference}", "ocidir://{layout}:{tag}"),
            "copy": (*_REGCTL, "{reference}", "{other}"),
            "tags": (*_REGCTL[:2], "tag", "ls", "{repository}"),
        },
    ),
    "oras": (
        ("version",),
        {
            "push": ("cp", "--no-tty", "--from-oci-layout", "{layout}:{tag}", *_TO, "{reference}"),
            "pull": ("cp", "--no-tty", *_FROM, "{reference}", "--to-oci-layout", "{layout}:{tag}"),
            "copy": ("cp", "--no-tty", *_FROM, *_TO, "{reference}", "{other}"),
            "tags": ("repo", "tags", "?--plain-http", "{repository}"),
        },
    ),
}
