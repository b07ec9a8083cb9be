"""Image config: what runs, on which platform, above which diff ids (image-spec 1.1, config.md).

Law: pure; bytes to a value and back. Times are epoch seconds inside and RFC 3339 in UTC outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from builder.oci.descriptor import Fields, Platform, read_object
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)
_PORT = re.compile(r"[1-9]\d{0,4}(/(tcp|udp|sctp))?\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Where a layer comes from; `empty_layer` for a change that made none."""

    created: int | None = None
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image's config. `created` is epoch seconds, `env` holds `NAME=value`, `exposed_ports` `8080/tcp`.

    `volumes` are absolute paths; `healthcheck` is Docker's extension, as it stands there.
    `diff_ids` and `history` have the order of the layers, lowest first.
    """

    platform: Platform
    created: int
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: Mapping[str, Any] = field(default_factory=dict, hash=False)
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()

    def __post_init__(self) -> None:
        for pair in self.env:
            if not pair.partition("=")[0] or "=" not in pair:
                raise IntegrityError(f"not NAME=value: {pair!r}", at="config.Env")
        for port in self.exposed_ports:
            if not _PORT.match(port):
                raise IntegrityError(f"not a port: {port!r}", at="config.ExposedPorts", hint="write 8080/tcp")

    @classmethod
    def parse(cls, data: bytes) -> ImageConfig:
        """Read a config's bytes; IntegrityError with the path for anything else. Fractions of seconds are cut."""
        fields = read_object(data, "image config")
        rootfs = fields.child("rootfs")
        if rootfs.text("type") != "layers":
            raise IntegrityError("`type` is not `layers`", at=rootfs.at)
        run = fields.child("config") if "config" in fields else Fields({}, "config")
        return cls(
            platform=Platform.from_fields(fields),
            created=_created(fields) or 0,
            env=run.texts("Env"),
            entrypoint=run.texts("Entrypoint"),
            cmd=run.texts("Cmd"),
            user=run.optional("User", str) or "",
            working_dir=run.optional("WorkingDir", str) or "",
            labels=run.table("Labels"),
            exposed_ports=tuple(sorted(run.optional("ExposedPorts", dict) or ())),
            volumes=tuple(sorted(run.optional("Volumes", dict) or ())),
            stop_signal=run.optional("StopSignal", str) or "",
            healthcheck=run.optional("Healthcheck", dict) or {},
            diff_ids=rootfs.digests("diff_ids"),
            history=tuple(_history(Fields(value, at)) for value, at in fields.items("history")),
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON, without the members that are not set."""
        run = {
            "Env": list(self.env),
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "User": self.user,
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Volumes": {path: {} for path in self.volumes},
            "StopSignal": self.stop_signal,
            "Healthcheck": dict(self.healthcheck),
        }
        value: dict[str, Any] = {
            **self.platform.to_dict(),
            "created": rfc3339(self.created),
            "config": _set_only(run),
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in self.diff_ids]},
            "history": [_history_value(entry) for entry in self.history],
        }
        return canonical_json(value)


def rfc3339(epoch: int) -> str:
    """Epoch seconds as `2026-01-02T03:04:05Z` (RFC 3339, UTC); IntegrityError beyond the year 9999."""
    try:
        moment = datetime.fromtimestamp(epoch, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise IntegrityError(f"not a time: {epoch}", because=str(error)) from error
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _created(fields: Fields) -> int | None:
    text = fields.optional("created", str)
    if text is None:
        return None
    try:
        if not _RFC3339.match(text):
            raise ValueError("expected a form such as 2026-01-02T03:04:05Z")
        return int(datetime.fromisoformat(text).astimezone(UTC).timestamp())
    except (ValueError, OverflowError) as error:
        raise IntegrityError(f"not a time: {text!r:.80}", at=f"{fields.at}.created", because=str(error)) from error


def _history(fields: Fields) -> History:
    return History(
        created=_created(fields),
        created_by=fields.optional("created_by", str) or "",
        comment=fields.optional("comment", str) or "",
        empty_layer=fields.optional("empty_layer", bool) or False,
    )


def _history_value(entry: History) -> dict[str, Any]:
    return _set_only(
        {
            "created": None if entry.created is None else rfc3339(entry.created),
            "created_by": entry.created_by,
            "comment": entry.comment,
            "empty_layer": entry.empty_layer,
        }
    )


def _set_only(value: dict[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if member}
