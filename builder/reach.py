"""Reach: the registry that a reference means, with all that this user and this host say about it.

Law: a value made of values; sends no request but the one that finds out whether a registry speaks plain http.
"""

from __future__ import annotations

from builder.registry.access import Access
from builder.registry.client import Registry
from builder.registry.journal import Journal
from builder.registry.reference import Reference
from builder.tools import Tools


def connect(reference: Reference, *, tools: Tools, access: Access, plain_http: bool = False) -> Registry:
    """The registry of a reference, with the user's own account for it."""
    return Registry(
        tools.transport,
        reference,
        plain_http=access.plain_http(reference, tools.transport, asked=plain_http),
        credentials=access.account(reference, tools.reporter.note),
        trusted_realms=access.realms(reference.host),
        journal=Journal(tools.work.parent / "registries"),
        note=tools.reporter.note,
    )
