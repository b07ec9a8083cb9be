"""How verbs that build come to the remote cache that the user has named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from builder.finding import Connect
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.settings import Settings
from builder.tools import Tools
from rootfs.errors import UsageError


@contextmanager
def caching(
    tools: Tools, settings: Settings, connect: Connect, *, sources: Sequence[str] = (), target: str | None = None
) -> Iterator[Tools]:
    """The tools, with the cache of the setting `cache`, or with these repositories; without any, as they are."""
    both = [settings.cache.value] if settings.cache.value else []
    taken = [_repository(text, connect) for text in (*sources, *both)]
    given = [_repository(text, connect) for text in ([target] if target else both)]
    if not taken and not given:
        yield tools
        return
    from builder.remote import RemoteCache  # noqa: PLC0415 (few builds have a cache)

    with RemoteCache(tools.store, tools.reporter, sources=taken, target=given[0] if given else None) as cache:
        yield replace(tools, cache=cache)


def _repository(text: str, connect: Connect) -> Registry:
    reference = Reference.parse(text)
    if reference.tag or reference.digest:
        raise UsageError("a cache is a repository, without a tag", at=text, hint=f"write {reference.name}")
    return connect(reference)
