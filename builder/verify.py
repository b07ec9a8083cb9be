"""Verify: the acceptance of an image, run inside it.

Law: the image's own interpreter judges, in a sandbox that has no network but loopback, with the config's environment.
Nothing that could not be tried counts as passed. What is asked lies in `builder.python.acceptance`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.execute import DEFAULT_PATH
from builder.images import OpenedImage, root_of
from builder.python.acceptance import LEFT_OUT, check_values, image_checks
from builder.python.verify import Check, Result, program, read_result
from builder.python.wheels import Target, fetch_wheels
from builder.tools import Tools
from rootfs.errors import BuildError
from rootfs.ports import Bind, Command, Outcome

_WHEELS = "/tmp/ocibuild-wheels"  # noqa: S108 - the sandbox's own tmpfs
_TAIL = 20

# What an image is, told by its interpreter: one `name value` a line; every `fact` is what a check's `only` may name.
_FACTS = """
import os, sys
try:
    import sysconfig
    get, paths = sysconfig.get_config_var, sysconfig.get_paths()
except Exception:
    get, paths = (lambda name: None), {"include": "", "stdlib": os.path.dirname(os.__file__)}
abi = "cp%d%d" % sys.version_info[:2]
if sys.version_info < (3,):
    abi += "mu" if sys.maxunicode > 0xffff else "m"
else:
    abi += getattr(sys, "abiflags", "")
def on_path(name):
    return any(os.access(os.path.join(place, name), os.X_OK) for place in os.environ.get("PATH", "").split(":"))
def among_modules(name):
    return any(os.path.isdir(os.path.join(place, name)) for place in sys.path)
bundled = os.path.join(paths["stdlib"], "ensurepip", "_bundled")
facts = {
    "free-threaded": bool(get("Py_GIL_DISABLED")),
    "gcc": on_path("gcc") and os.path.exists(os.path.join(paths["include"], "Python.h")),
    "jit": hasattr(sys, "_jit") and sys._jit.is_available(),
    "ldconfig": os.access("/sbin/ldconfig", os.X_OK),
    "pip": among_modules("pip"),
    "pyc": os.path.isdir(os.path.join(paths["stdlib"], "__pycache__")),
    "shared": bool(get("Py_ENABLE_SHARED")),
    "venv": os.path.isdir(bundled) and any(name.startswith("pip-") for name in os.listdir(bundled)),
}
print("version %d.%d.%d" % sys.version_info[:3])
print("abi " + abi)
print("machine " + os.uname()[4])
print("glibc " + os.confstr(2))  # CS_GNU_LIBC_VERSION, which 2.7 does not know by name
for name in sorted(facts):
    if facts[name]:
        print("fact " + name)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of each check of an image, in the order they were made."""

    image: str
    results: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.status == "FAILED")

    @property
    def summary(self) -> str:
        """`dist/wee@sha256:...: 63 passed, 0 failed, 1 not tried`."""
        counted = [result.status for result in self.results]
        passed, failed, untried = (counted.count(status) for status in ("ok", "FAILED", "not tried"))
        return f"{self.image}: {passed} passed, {failed} failed, {untried} not tried"

    def to_value(self) -> dict[str, Any]:
        """The JSON value."""
        checks = [
            {"name": result.check.name, "status": result.status.lower(), "detail": result.detail}
            | ({"wants": result.check.library} if result.status == "FAILED" and result.check.library else {})
            for result in self.results
        ]
        return {"image": self.image, "passed": not self.failed, "checks": checks}

    def require(self) -> None:
        """BuildError that names each failed check and what it wanted."""
        if not self.failed:
            return
        raise BuildError(
            "the image does not pass its acceptance",
            at=self.image,
            because="\n".join(str(result) for result in self.failed),
            hint="`ocibuild verify IMAGE` runs the checks again",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What the image's interpreter says of itself."""

    version: tuple[int, ...]
    target: Target
    words: frozenset[str]


def verify_image(
    image: OpenedImage, tools: Tools, *, wheels: Path | None = None, without: Collection[str] = ()
) -> Report:
    """Run every check that fits the image; each result is noted as it comes.

    `wheels` is a directory to keep published wheels in, fetched with pip when they are not there; None leaves the
    checks that want them untried. `without` names modules left out beside those that a label says. BuildError when no
    Python of the image runs; HostError when this machine allows no sandbox.
    """
    said = image.config.labels.get(LEFT_OUT, "").split(",")
    without = frozenset((*without, *filter(None, said)))
    run = _Interpreter(image=image, tools=tools, root=root_of(image, tools), path=_python(image))
    facts = run.facts()
    place, reason = None, "wheels are only tried with --wheels"
    if wheels is not None and "pip" in facts.words:
        place, reason = fetch_wheels(facts.target, wheels)
    checks = image_checks(facts.version, facts=facts.words, without=without)
    values = check_values(facts.version, without=without)
    values |= {"wheels": _WHEELS if place else "", "why_no_wheels": reason}
    binds = (Bind(source=place, target=_WHEELS),) if place else ()
    return Report(image=str(image), results=run.checks(checks, values, binds))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interpreter:
    """A Python of an image, at `path` below its extracted `root`."""

    image: OpenedImage
    tools: Tools
    root: Path
    path: str

    def facts(self) -> _Facts:
        lines: list[str] = []
        outcome = self._run(_FACTS, lines)
        said = dict(line.split(" ", 1) for line in lines if not line.startswith("fact ") and " " in line)
        try:
            version = tuple(int(number) for number in said["version"].split("."))
            target = Target(
                version=(version[0], version[1]),
                abi=said["abi"],
                machine=said["machine"],
                glibc=int(said["glibc"].rpartition(".")[2]),
            )
        except (KeyError, ValueError) as error:
            because = "\n".join(lines[-_TAIL:]) or f"it exited {outcome.exit}"
            raise BuildError(f"the image's {self.path} does not run", at=str(self.image), because=because) from error
        words = frozenset(line.removeprefix("fact ") for line in lines if line.startswith("fact "))
        return _Facts(version=version, target=target, words=words)

    def checks(
        self, checks: tuple[Check, ...], values: Mapping[str, object], binds: tuple[Bind, ...]
    ) -> tuple[Result, ...]:
        lines: list[str] = []
        outcome = self._run(program(checks, values), lines, binds, checks)
        found = {result.check.name: result for line in lines if (result := read_result(line, checks))}
        lost = f"the interpreter ended before it (exit {outcome.exit}); its output is in {outcome.log}"
        return tuple(found.get(one.name) or Result(check=one, status="FAILED", detail=lost) for one in checks)

    def _run(
        self, text: str, lines: list[str], binds: tuple[Bind, ...] = (), checks: tuple[Check, ...] = ()
    ) -> Outcome:
        """Run a program; its lines are kept, and those that are a check's result, or its output, noted."""

        def on_line(line: str) -> None:
            lines.append(line)
            result = read_result(line, checks)
            if result or line.startswith("| "):
                self.tools.reporter.note(str(result or line))

        command = Command(
            root=self.root,
            argv=(self.path, "-c", text),
            environment={"HOME": "/tmp", "PATH": DEFAULT_PATH, **self.image.environment},  # noqa: S108
            binds=binds,
            log=self.tools.work / "log" / f"verify-{self.image.descriptor.digest.hex[:16]}.log",
            on_line=on_line,
        )
        return self.tools.sandbox.run(command)


def _python(image: OpenedImage) -> str:
    """The absolute path of the first Python on the config's PATH."""
    places = image.environment.get("PATH", DEFAULT_PATH).split(":")
    for name in ("python3", "python2", "python"):
        for place in places:
            if place.startswith("/") and image.tree.resolve(f"{place}/{name}") in image.tree:
                return f"{place}/{name}"
    raise BuildError("the image has no Python on its PATH", at=str(image), because=f"PATH is {':'.join(places)}")
