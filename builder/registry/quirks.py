"""Quirks: what is known of registries beyond the specification, as data; every row bit someone.

Law: pure values. A row says what a registry does, never what to do about it: that is `upload`'s. What is learnt from a
registry itself (`journal`) stands above the table, and what is not known is None, which means: try it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a registry can: None is not known. Sizes are bytes.

    `chunks`: an upload may come in several PATCHes, each at most `max_chunk`; `max_body`: the largest body of any
    request; `mount`: a blob of a repository that is named; `anonymous_mount`: one of any repository; `referrers`: the
    API of that name; `several_tags`: set by one PUT of a manifest.
    """

    chunks: bool | None = None
    max_chunk: int | None = None
    max_body: int | None = None
    mount: bool | None = None
    anonymous_mount: bool | None = None
    referrers: bool | None = None
    several_tags: bool | None = None

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Facts:
        """Read what `to_dict` gave; what is not of its field's type is taken for not known."""
        kinds = {name: int if name.startswith("max_") else bool for name in names()}
        known = {name: found for name, kind in kinds.items() if type(found := value.get(name)) is kind}
        return replace(cls(), **known)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, bool | int]:
        """What is known, by name."""
        return {name: value for name in names() if (value := getattr(self, name)) is not None}

    def over(self, other: Facts) -> Facts:
        """These facts, and the other ones where these know nothing."""
        return replace(other, **self.to_dict())  # type: ignore[arg-type]


def names() -> tuple[str, ...]:
    """The names of all facts, in order."""
    return tuple(field.name for field in fields(Facts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirk:
    """A row of the table: hosts it is about (fnmatch patterns of a host without its port), facts, why, who says so."""

    registry: str
    hosts: tuple[str, ...]
    facts: Facts
    why: str
    source: str


TABLE = (
    Quirk(
        registry="Amazon ECR",
        hosts=("*.dkr.ecr.*.amazonaws.com", "*.dkr.ecr.*.amazonaws.com.cn", "public.ecr.aws"),
        facts=Facts(chunks=False, anonymous_mount=False),
        why="every chunk after the first is dropped without a word, and Range stands still; mounts need an account "
        "setting, and a manifest that has the blob",
        source="aws/containers-roadmap#2831, #2860; openai/tart#273",
    ),
    Quirk(
        registry="Google Artifact Registry",
        hosts=("*-docker.pkg.dev", "docker.pkg.dev", "gcr.io", "*.gcr.io"),
        facts=Facts(chunks=False),
        why="no chunks at all; an upload's Location is on another path, with a long query",
        source="dotnet/sdk-container-builds#287; kitops-ml/kitops#777; skopeo#1101",
    ),
    Quirk(
        registry="GitHub (GHCR)",
        hosts=("ghcr.io",),
        facts=Facts(max_chunk=4 * MIB, referrers=False),
        why="a PATCH over 4 MiB is answered 416; no referrers API",
        source="ocx-sh/ocx#237; rust-oci-client#35; NVIDIA/aicr#1957",
    ),
    Quirk(
        registry="Quay",
        hosts=("quay.io",),
        facts=Facts(anonymous_mount=False),
        why="a mount that names no repository is answered 400",
        source="jib#703",
    ),
    Quirk(
        registry="Artifactory",
        hosts=("*.jfrog.io",),
        facts=Facts(mount=False, anonymous_mount=False),
        why="mounts are refused; a blob is shared once some manifest has it",
        source="bazel-contrib/rules_img, registry-support.md",
    ),
)


def known_of(host: str) -> Facts:
    """What the table says of a host (with or without a port); rows above win."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    found = Facts()
    for quirk in TABLE:
        if any(fnmatchcase(name.lower(), pattern) for pattern in quirk.hosts):
            found = found.over(quirk.facts)
    return found
