"""Fetch CPython's source: python.org first, a Debian mirror second, the same bytes from either.

Law: trusts the pinned digest and nothing else; a source that serves other bytes is reported and passed over.
"""

from __future__ import annotations

from collections.abc import Iterator

from builder.python.versions import PythonRelease
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError
from rootfs.ports import Reporter, Request, Response, Store, Transport


def fetch_source(release: PythonRelease, transport: Transport, store: Store, mirror: str, reporter: Reporter) -> Digest:
    """Put the source tarball into the store, unless it is there; `mirror` is a Debian mirror's base URL.

    Raises TransferError when no source could be read, IntegrityError when one was read and none had the right bytes;
    both say what each source answered.
    """
    if store.exists(release.source):
        return release.source
    failures: list[TransferError | IntegrityError] = []
    for request in _requests(release, mirror):
        try:
            return _fetch(request, release, transport, store, reporter)
        except (TransferError, IntegrityError) as error:
            reason = f"{error.message} ({error.because})" if error.because else error.message
            reporter.note(f"{request.url}: {reason}")
            failures.append(type(error)(reason, at=request.url))
    family = IntegrityError if any(isinstance(error, IntegrityError) for error in failures) else TransferError
    hint = "name a Debian mirror that has the file, or check the network and its proxy settings"
    if not release.pool:
        hint = "Debian's archive has no copy of this release: python.org must be within reach"
    raise family(
        f"no source of CPython {release.version} could be used",
        because="\n".join(f"{error.at}: {error.message}" for error in failures),
        hint=hint,
    )


def _requests(release: PythonRelease, mirror: str) -> tuple[Request, ...]:
    if not release.pool:
        return (Request(method="GET", url=release.upstream),)
    # python.org gets one try: an unreachable host (an air gap, a mirror-only network) must not cost a retry loop.
    return (
        Request(method="GET", url=release.upstream, attempts=1),
        Request(method="GET", url=f"{mirror.rstrip('/')}/{release.pool}"),
    )


def _fetch(request: Request, release: PythonRelease, transport: Transport, store: Store, reporter: Reporter) -> Digest:
    task = f"fetch {release.file_name}"
    with transport.send(request) as response:
        if response.status != 200:
            raise TransferError(f"answered {response.status}")
        reporter.begin(task, release.size)
        result = "failed"
        try:
            chunks = _counted(response, task, reporter)
            stored = store.put(chunks, expect=release.source, size=release.size)
            result = "done"
        finally:
            reporter.finish(task, result)
    return stored.digest


def _counted(response: Response, task: str, reporter: Reporter) -> Iterator[bytes]:
    for chunk in response.chunks:
        reporter.advance(task, len(chunk))
        yield chunk
