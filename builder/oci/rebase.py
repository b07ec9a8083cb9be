"""Rebase: the same upper layers upon another base (image-spec 1.1, config.md; annotations.md, `base.name`).

Law: pure; JSON values in, JSON values out. Layers are told apart by their diff ids. What the image has from its old
base it has from the new one afterwards; what it says itself it goes on saying.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rootfs.errors import UsageError

_OF_THE_PLATFORM = ("os.version", "os.features")  # what a base is made for, beside the platform itself
_SETS = ("Labels", "ExposedPorts", "Volumes")
_PLATFORM = ("os", "architecture", "variant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """An image's manifest and config as JSON values that were found to be right; `name` is for people."""

    name: str
    manifest: dict[str, Any]
    config: dict[str, Any]

    @property
    def diff_ids(self) -> list[str]:
        """The layers' diff ids, lowest first."""
        return list(self.config["rootfs"].get("diff_ids") or [])

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The layers' descriptors, lowest first."""
        return list(self.manifest["layers"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """The history; entries that say nothing where it does not tell of every layer."""
        history = list(self.config.get("history") or [])
        if sum(not entry.get("empty_layer") for entry in history) == len(self.diff_ids):
            return history
        return [{} for _ in self.diff_ids]

    @property
    def platform(self) -> str:
        """As Docker writes it: linux/arm64/v8."""
        return "/".join(filter(None, (self.config.get(name) for name in _PLATFORM)))


def rebased(image: Documents, old: Documents, new: Documents) -> Documents:
    """The image upon `new`, in place of `old`, whose layers are its lowest ones; UsageError when they are not."""
    _require(image, old, new)
    count = len(old.diff_ids)
    config = {name: value for name, value in image.config.items() if name not in _OF_THE_PLATFORM}
    config |= {name: new.config[name] for name in _OF_THE_PLATFORM if name in new.config}
    config["rootfs"] = {**image.config["rootfs"], "diff_ids": new.diff_ids + image.diff_ids[count:]}
    config["history"] = new.history + _upper_history(image, old)
    run = _run(*(one.config.get("config") or {} for one in (image, old, new)))
    if run or "config" in config:
        config["config"] = run
    manifest = {**image.manifest, "layers": new.layers + image.layers[count:]}
    return Documents(name=image.name, manifest=manifest, config=config)


def _require(image: Documents, old: Documents, new: Documents) -> None:
    """That the old base is one, and the new one for the same platform."""
    found, wanted = image.diff_ids, old.diff_ids
    for number, diff_id in enumerate(wanted):
        got = found[number] if number < len(found) else "none: it has fewer"
        if got != diff_id:
            raise UsageError(
                f"{old.name} is not the base of {image.name}",
                because=f"layer {number + 1} of {len(wanted)} differs: its diff id is {got}, the base's is {diff_id}",
                hint="name the image it was built from with --rebase-from",
            )
    if new.platform != image.platform:
        raise UsageError(f"{new.name} is for another platform", because=f"{new.platform}, not {image.platform}")


def _run(image: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The config's `config`: member by member, tables name by name, PATH and its like by what was put around them."""
    result = _merged(*(_said({n: v for n, v in one.items() if n not in (*_SETS, "Env")}) for one in (image, old, new)))
    for name in _SETS:
        result[name] = _merged(*(one.get(name) or {} for one in (image, old, new)))
    variables = [dict(pair.split("=", 1) for pair in one.get("Env") or []) for one in (image, old, new)]
    result["Env"] = [f"{name}={value}" for name, value in _merged(*variables, around=True).items()]
    return _said(result)


def _said(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that hold something: builders write null or nothing at all for an empty list."""
    return {name: value for name, value in members.items() if value not in (None, "", [], {})}


def _merged(
    image: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any], *, around: bool = False
) -> dict[str, Any]:
    """The new base's members, less those the image took out, and with those it changed or added.

    With `around` a list of directories that was put around the old base's is put around the new one's.
    """
    result = {name: value for name, value in new.items() if name in image or name not in old}
    for name, value in image.items():
        if name in old and value == old[name]:
            continue
        if around and name in new and (told := _around(value, old.get(name, ""), new[name])):
            result[name] = told
        else:
            result[name] = value
    return result


def _around(value: str, old: str, new: str) -> str | None:
    """`/app/bin:OLD` -> `/app/bin:NEW`; None when the old list of directories is not in the value as a whole."""
    before, found, after = f":{value}:".partition(f":{old}:")
    return f"{before}:{new}:{after}"[1:-1] if old and found else None


def _upper_history(image: Documents, old: Documents) -> list[dict[str, Any]]:
    """What the image's history says of what lies upon the old base."""
    history, below = image.history, old.history
    if history[: len(below)] == below:
        return history[len(below) :]
    left = len(old.diff_ids)
    for number, entry in enumerate(history):
        if left == 0:
            return history[number:]
        left -= not entry.get("empty_layer")
    return []
