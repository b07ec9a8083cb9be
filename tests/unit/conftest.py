"""A registry in memory, and who speaks to it."""

from __future__ import annotations

import pytest

from builder.registry.client import Registry
from builder.registry.reference import Reference
from tests.fakes.registry import MemoryRegistry
from tests.fakes.transport import FakeTransport


@pytest.fixture
def server() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def transport(server: MemoryRegistry) -> FakeTransport:
    return FakeTransport(server)


@pytest.fixture
def registry(transport: FakeTransport) -> Registry:
    return Registry(transport, Reference.parse("r.example.org/a"))
