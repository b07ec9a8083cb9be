"""What flags say of an image, as values: `NAME=VALUE`, command lines, ports; UsageError for what is none."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from builder.oci.annotations import fault_of
from builder.oci.edit import Edit
from rootfs.errors import UsageError

_PORT = re.compile(r"([1-9]\d{0,4})(/(?:tcp|udp|sctp))?\Z", re.ASCII)
_SIGNAL = re.compile(r"(SIG[A-Z0-9+-]+|[1-9]\d?)\Z", re.ASCII)


def annotations_of(texts: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` annotations, each checked as the specification has it."""
    said = _pairs("--annotation", texts)
    for name, value in said.items():
        if fault := fault_of(name, value):
            raise UsageError(f"not an annotation: {name}={value!r:.200}", because=fault)
    return said


def edit_of(words: Mapping[str, Any]) -> Edit:
    """The flags of `ocibuild mutate` as an Edit."""
    return Edit(
        env={**_pairs("--env", words["env"]), **_unset("--unset-env", words["unset_env"])},
        labels={**_pairs("--label", words["label"]), **_unset("--unset-label", words["unset_label"])},
        annotations={
            **annotations_of(words["annotation"]),
            **_unset("--unset-annotation", words["unset_annotation"]),
        },
        ports=_members(words["expose"], words["unset_expose"], _port),
        volumes=_members(words["volume"], words["unset_volume"], _path),
        entrypoint=_words("--entrypoint", words["entrypoint"]),
        cmd=_words("--cmd", words["cmd"]),
        user=_plain("--user", words["user"]),
        working_dir=_path(words["workdir"]) if words["workdir"] else words["workdir"],
        stop_signal=_signal(words["stop_signal"]),
        created=_created(words["created"]),
    )


def _pairs(flag: str, texts: Iterable[str]) -> dict[str, str]:
    said: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or "\0" in text:
            raise UsageError(f"{flag} {text!r:.200} is no NAME=VALUE", hint=f"write {flag} NAME=VALUE")
        if name in said:
            raise UsageError(f"{flag} names {name!r} twice")
        said[name] = value
    return said


def _unset(flag: str, names: Iterable[str]) -> dict[str, None]:
    for name in names:
        if not name or "=" in name:
            raise UsageError(f"{flag} {name!r:.200} is no name", hint=f"write {flag} NAME")
    return dict.fromkeys(names)


def _members(added: Iterable[str], taken: Iterable[str], form: Callable[[str], str]) -> dict[str, bool]:
    return {form(text): True for text in added} | {form(text): False for text in taken}


def _words(flag: str, text: str | None) -> tuple[str, ...] | None:
    """A JSON list, or words as a shell takes them."""
    if text is None:
        return None
    try:
        words = json.loads(text) if text.startswith("[") else shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{flag} cannot be read: {text!r:.200}", because=str(error)) from error
    if not all(isinstance(word, str) for word in words):
        raise UsageError(
            f"{flag} cannot be read: {text!r:.200}", hint='write a list of texts: ["python3", "-m", "app"]'
        )
    return tuple(words)


def _plain(flag: str, text: str | None) -> str | None:
    if text is not None and (text != text.strip() or any(character.isspace() for character in text)):
        raise UsageError(f"{flag} {text!r:.200} holds spaces", hint="write a name or a number, with :GROUP perhaps")
    return text


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise UsageError(f"not an absolute path: {text!r:.200}")
    return text


def _port(text: str) -> str:
    match = _PORT.match(text)
    if match is None or int(match[1]) > 65535:
        raise UsageError(f"not a port: {text!r:.200}", hint="write 8080, 8080/tcp or 53/udp")
    return text if match[2] else f"{text}/tcp"


def _signal(text: str | None) -> str | None:
    if text and not _SIGNAL.match(text):
        raise UsageError(f"not a signal: {text!r:.200}", hint="write SIGINT, SIGRTMIN+3 or a number")
    return text


def _created(text: str | None) -> int | None:
    if text is None or text == "keep":
        return None
    if not re.match(r"\d{1,12}\Z", text, re.ASCII):
        raise UsageError(f"not a time: {text!r:.200}", hint="write seconds since 1970 (date +%s), or keep")
    return int(text)
