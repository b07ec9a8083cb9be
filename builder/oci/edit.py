"""Edit: what an image's config and manifest say, changed where it stands (image-spec 1.1, config.md, manifest.md).

Law: pure; JSON values in, JSON values out. What is not named stays as it is, members that nobody here knows too. A
member that has nothing left in it goes, so that a change taken back leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.oci.config import rfc3339
from builder.oci.descriptor import CONFIG, Descriptor
from builder.oci.mediatypes import OCI_NAMES

Table = Mapping[str, str | None]
"""Names and their values; None takes the name out."""

Members = Mapping[str, bool]
"""Names of a set, each in it or taken out of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What becomes of an image. None leaves a member as it is; an empty text or list takes it out.

    `created` is epoch seconds. `annotations` are the manifest's, all else is the config's.
    """

    env: Table = field(default_factory=dict, hash=False)
    labels: Table = field(default_factory=dict, hash=False)
    annotations: Table = field(default_factory=dict, hash=False)
    ports: Members = field(default_factory=dict, hash=False)
    volumes: Members = field(default_factory=dict, hash=False)
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    user: str | None = None
    working_dir: str | None = None
    stop_signal: str | None = None
    created: int | None = None

    def config(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """A config's value after this; IntegrityError for a time that is none."""
        run = dict(value.get("config") or {})
        said: dict[str, str | tuple[str, ...] | None] = {"User": self.user, "WorkingDir": self.working_dir}
        said |= {"StopSignal": self.stop_signal, "Entrypoint": self.entrypoint, "Cmd": self.cmd}
        for name, member in said.items():
            if member is not None:
                _set(run, name, member if isinstance(member, str) else list(member))
        if self.env:
            _set(run, "Env", _edited_env(run.get("Env") or [], self.env))
        tables: dict[str, Mapping[str, Any]] = {"Labels": self.labels}
        for name, members in (("ExposedPorts", self.ports), ("Volumes", self.volumes)):
            tables[name] = {key: {} if kept else None for key, kept in members.items()}
        for name, changes in tables.items():
            if changes:
                _set(run, name, _table(run.get(name), changes))
        result = dict(value)
        if run or "config" in value:
            result["config"] = run
        if self.created is not None:
            result["created"] = rfc3339(self.created)
        return result

    def annotated(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The value of a manifest or an index with these annotations."""
        result = dict(value)
        if self.annotations:
            _set(result, "annotations", _table(result.get("annotations"), self.annotations))
        return result


def _edited_env(env: list[str], changes: Table) -> list[str]:
    """`NAME=value` texts: a value takes the place of the one before, a new name comes last."""
    values = {**dict(pair.split("=", 1) for pair in env), **changes}
    return [f"{name}={value}" for name, value in values.items() if value is not None]


def pointing(value: Mapping[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor's value that points to other bytes; what else was said of them stays."""
    kept = {name: member for name, member in value.items() if name != "data"}  # the old bytes, embedded
    return {**kept, "mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


def with_oci_names(value: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's or an index's value with OCI's media types in place of Docker's.

    The documents are the same; what an index points to has its own.
    """
    result = dict(value)
    if "mediaType" in result:
        result["mediaType"] = OCI_NAMES.get(result["mediaType"], result["mediaType"])
    if "layers" in result:
        result["layers"] = [
            {**one, "mediaType": OCI_NAMES.get(one["mediaType"], one["mediaType"])} for one in result["layers"]
        ]
    if "config" in result:
        result["config"] = {**result["config"], "mediaType": CONFIG}
    return result


def _table(table: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**(table or {}), **changes}.items() if value is not None}


def _set(members: dict[str, Any], name: str, value: object) -> None:
    if value:
        members[name] = value
    else:
        members.pop(name, None)
