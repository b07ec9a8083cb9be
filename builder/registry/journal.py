"""Journal: what outlives a process that talked to registries: upload sessions, where blobs were seen, what was learnt.

Law: small files below one directory, written whole or not at all; one that is damaged, old or missing is as if it had
never been, so nothing here can make a push wrong. No secret of ours is ever in it; but the URL of an upload session may
carry a signature of the registry's own, which lets who reads it write to that one session. So files are 0600.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from builder.registry.quirks import Facts
from builder.registry.upload import Session
from rootfs.digest import Digest
from rootfs.errors import OcibuildError
from rootfs.files import locked, unfinished

SESSION_LIFE = 6 * 86400.0
"""Seconds. Registries throw away what was uploaded in parts after a week or less."""
FACTS_LIFE = 30 * 86400.0
BLOBS_LIFE = 90 * 86400.0
_REPOSITORIES = 3


class Journal:
    """Everything below the directory `place`; safe for several processes and threads. Registries are named by origin.

    Writing to a directory that does not let itself be written to is given up without a word: it costs speed alone.
    """

    def __init__(self, place: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._place = place
        self._clock = clock

    @contextmanager
    def session(self, registry: str, repository: str, digest: Digest) -> Iterator[Entry | None]:
        """The upload of one blob to one repository; None while another process is at the same."""
        name = Digest.of_value([registry, repository, str(digest)]).hex
        directory = self._place / "uploads"
        with ExitStack() as stack:
            is_ours = False
            with suppress(OSError):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                is_ours = stack.enter_context(locked(directory / f"{name}.lock"))
                self._sweep(directory)
            about = {"registry": registry, "repository": repository}
            yield Entry(self, f"uploads/{name}.json", about) if is_ours else None

    def repositories(self, registry: str, digest: Digest) -> tuple[str, ...]:
        """Repositories of the registry that had this blob, the latest first."""
        found = self.read(self._blob(registry, digest), BLOBS_LIFE).get("repositories")
        return tuple(str(name) for name in found) if isinstance(found, list) else ()

    def seen(self, registry: str, digest: Digest, repository: str) -> None:
        """The repository has the blob."""
        known = self.repositories(registry, digest)
        if known[:1] != (repository,):
            others = [name for name in known if name != repository]
            self.write(self._blob(registry, digest), {"repositories": [repository, *others][:_REPOSITORIES]})

    def not_seen(self, registry: str, digest: Digest, repository: str) -> None:
        """The repository has the blob no more, or does not give it."""
        known = self.repositories(registry, digest)
        if repository in known:
            left = [name for name in known if name != repository]
            self.write(self._blob(registry, digest), {"repositories": left})

    def facts(self, registry: str) -> Facts:
        """What was learnt of the registry, and is not too old."""
        known = self.read(_facts(registry), FACTS_LIFE).get("facts")
        return Facts.from_dict(known) if isinstance(known, dict) else Facts()

    def learn(self, registry: str, facts: Facts) -> None:
        """The registry showed what it can; what was learnt of it before stays."""
        known = self.facts(registry)
        if (learnt := facts.over(known)) != known:
            self.write(_facts(registry), {"registry": registry, "facts": learnt.to_dict()})

    def read(self, name: str, life: float) -> dict[str, object]:
        """A file's values; none when it is older than `life` seconds, damaged or missing."""
        try:
            value = json.loads((self._place / name).read_bytes())
            fresh = isinstance(value, dict) and 0 <= self._clock() - float(value["when"]) <= life
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}
        return value if fresh else {}

    def write(self, name: str, value: dict[str, object]) -> None:
        """Replace a file; its values get the date."""
        target = self._place / name
        with suppress(OSError, OcibuildError):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with unfinished(target.parent) as file:
                file.stream.write(json.dumps(value | {"when": self._clock()}, sort_keys=True).encode())
                file.publish(target, 0o600, sync=False)

    def remove(self, name: str) -> None:
        """The file is of no use any more."""
        with suppress(OSError):
            (self._place / name).unlink(missing_ok=True)

    def _sweep(self, directory: Path) -> None:
        """Remove what is too old to be resumed, and what a process that was killed left half-written."""
        with suppress(OSError):
            for path in directory.iterdir():
                if self._clock() - path.stat().st_mtime > SESSION_LIFE:
                    path.unlink(missing_ok=True)

    def _blob(self, registry: str, digest: Digest) -> str:
        return f"blobs/{_key(registry)}/{digest.algorithm}-{digest.hex}.json"


class Entry:
    """The journal of one upload; see `upload.Record`."""

    def __init__(self, journal: Journal, name: str, about: dict[str, str]) -> None:
        self._journal = journal
        self._name = name
        self._about = about

    def resume(self) -> Session | None:
        """Where an earlier process was."""
        found = self._journal.read(self._name, SESSION_LIFE)
        location, offset = found.get("location"), found.get("offset")
        if not isinstance(location, str) or not isinstance(offset, int):
            return None
        return Session(location=location, offset=offset)

    def reached(self, session: Session) -> None:
        """Keep where we are."""
        value: dict[str, object] = {**self._about, "location": session.location, "offset": session.offset}
        self._journal.write(self._name, value)

    def ended(self) -> None:
        """There is nothing to resume."""
        self._journal.remove(self._name)


def _key(registry: str) -> str:
    return Digest.of(registry.encode()).hex[:16]


def _facts(registry: str) -> str:
    return f"facts/{_key(registry)}.json"
