"""All targets by name: each has a module of that name, which runs it under atheris."""

from __future__ import annotations

from types import MappingProxyType

from tests.fuzz.archive_targets import ARCHIVE_TARGETS
from tests.fuzz.debian_targets import DEBIAN_TARGETS
from tests.fuzz.oci_targets import OCI_TARGETS

TARGETS = MappingProxyType({**DEBIAN_TARGETS, **OCI_TARGETS, **ARCHIVE_TARGETS})
