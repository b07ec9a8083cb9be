"""What must hold after a scenario: each check says what is wrong, or nothing.

A check sees what the client said and left behind, and the registry with all it was asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.samples import TAG, Sample
from tests.peers.quirky import BASIC, Exchange, Quirky, digest_of

REPOSITORY, OTHER = "team/app", "team/copy"
_CONFIG = 1024
_SHORTER = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"localhost:\d+", "HOST"),
    (r"127\.0\.0\.1:\d+", "HOST"),
    (r"(?:/[\w.-]+)*/home-\w+", "HOME"),
    (r'time="[^"]*" level=\w+ msg=', ""),
    (r"uploads/[0-9a-f]{16}", "uploads/ID"),
    (r"(sha(?:256|512)(?::|%3A)[0-9a-f]{6})[0-9a-f]+", r"\1..."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run that is over: `status` is the client's (None: it did not end in time), `output` all it printed.

    `target` is the layout it was to pull into; `attached` what was pushed after the sample.
    """

    task: str
    status: int | None
    output: str
    registry: Quirky
    sample: Sample
    target: Path
    attached: Sample | None = None

    def requests(self, pattern: str) -> list[Exchange]:
        """What was asked with a line (`METHOD path?query`) that the pattern finds."""
        return [one for one in self.registry.seen if re.search(pattern, one.line)]


Check = Callable[[Outcome], str]


def arrives(outcome: Outcome) -> str:
    """The client says so, and all of the image is where it belongs, byte for byte."""
    return ended_well(outcome) or (_pulled(outcome) if outcome.task == "pull" else _pushed(outcome))


def ended_well(outcome: Outcome) -> str:
    """The client's exit status is 0."""
    if outcome.status is None:
        return "did not end in time"
    return f"exit {outcome.status}: {_last(outcome.output)}" if outcome.status else ""


def _pushed(outcome: Outcome) -> str:
    registry, sample = outcome.registry, outcome.sample
    repository = OTHER if outcome.task == "copy" else REPOSITORY
    if registry.tags.get((repository, TAG)) != sample.digest:
        return "the tag is not there" if (repository, TAG) not in registry.tags else "the tag has another digest"
    for digest, data in sample.blobs.items():
        if registry.blobs.get((repository, digest)) != data:
            return f"blob {digest[:19]} is not there"
    for digest, (media_type, _) in sample.manifests.items():
        if registry.manifests.get((repository, digest), ("",))[0] != media_type:
            return f"manifest {digest[:19]} is not there, or under another media type"
    return "a tag was set before all was there" if registry.early_tags else ""


def _pulled(outcome: Outcome) -> str:
    try:
        index = json.loads((outcome.target / "index.json").read_text())
    except (OSError, ValueError) as error:
        return f"no layout: {error}"
    if outcome.sample.digest not in [row.get("digest") for row in index.get("manifests", ())]:
        return "the layout does not list the image's digest"
    for digest, data in {**outcome.sample.blobs, **{k: d for k, (_, d) in outcome.sample.manifests.items()}}.items():
        path = outcome.target / "blobs" / digest.replace(":", "/")
        if not path.is_file() or path.read_bytes() != data:
            return f"{digest[:19]} is not in the layout"
    return ""


def refused(outcome: Outcome) -> str:
    """The client says that it failed, and left nothing wrong behind."""
    if outcome.status is None:
        return "did not end in time"
    if outcome.status == 0:
        return "said that all is well"
    if outcome.task == "pull":
        return _sound_layout(outcome)
    return "the tag is there" if (REPOSITORY, TAG) in outcome.registry.tags else ""


def _sound_layout(outcome: Outcome) -> str:
    """No file in the layout is other than its name says, and no name stands for what is not there."""
    for path in (outcome.target / "blobs").glob("*/*"):
        digest = f"{path.parent.name}:{path.name}"
        is_one = re.fullmatch(r"sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})", digest)
        if is_one and digest_of(path.read_bytes(), digest) != digest:
            return f"wrong bytes are in the layout as {digest[:19]}"
    listed = outcome.target / "index.json"
    rows = json.loads(listed.read_text()).get("manifests", ()) if listed.is_file() else ()
    return "the layout lists an image that did not arrive" if rows else ""


def no_secret_elsewhere(outcome: Outcome) -> str:
    """No other host was told a password or a token."""
    for one in outcome.registry.seen:
        if one.listener != "registry" and (one.headers.get("authorization") or "token" in one.query.lower()):
            what = "the password" if one.headers.get("authorization") == BASIC else "a token"
            return f"{what} was sent to another host"
    return ""


def arrives_without_telling(outcome: Outcome) -> str:
    """It arrives, and no other host was told a secret."""
    return no_secret_elsewhere(outcome) or arrives(outcome)


def refused_without_telling(outcome: Outcome) -> str:
    """Refused, and no other host was told a secret, or anything over plain http."""
    if [one for one in outcome.registry.seen if one.listener == "plain"]:
        return "went on over plain http"
    return no_secret_elsewhere(outcome) or refused(outcome)


def waited(seconds: float) -> Check:
    """It arrives, and between a 429 and the next request to that path were so many seconds."""

    def check(outcome: Outcome) -> str:
        failed = arrives(outcome)
        refusals = [one for one in outcome.registry.seen if one.status == 429]
        for one in refusals:
            later = [
                next_.at - one.at for next_ in outcome.registry.seen if next_.at > one.at and next_.line == one.line
            ]
            if later and later[0] < seconds - 0.2:
                return f"came back after {later[0]:.1f} s"
        return failed or ("" if refusals else "was never refused")

    return check


def once(text: str) -> Check:
    """It arrives, and this was printed once."""

    def check(outcome: Outcome) -> str:
        found = outcome.output.count(text)
        return arrives(outcome) or ("" if found == 1 else f"shown {found} times")

    return check


def mounts(outcome: Outcome) -> str:
    """The layers came by a mount: at most a config was uploaded."""
    sent = sum(one.received for one in outcome.requests(r"^(PUT|PATCH|POST) .*/blobs/uploads/"))
    return arrives(outcome) or (f"{sent} bytes were uploaded" if sent > _CONFIG else "")


def sent_at_most(share: float) -> Check:
    """It arrives, and the bodies of its uploads were at most this share of the blobs."""

    def check(outcome: Outcome) -> str:
        sent = sum(one.received for one in outcome.requests(r"^(PUT|PATCH|POST) .*upload"))
        whole = sum(map(len, outcome.sample.blobs.values()))
        return arrives(outcome) or ("" if sent <= share * whole else f"sent {sent / whole:.1f} times the blobs")

    return check


def got_at_most(share: float) -> Check:
    """It arrives, and what the registry sent of blobs was at most this share of them."""

    def check(outcome: Outcome) -> str:
        got = sum(one.sent for one in outcome.requests(r"^GET .*/blobs/"))
        whole = sum(map(len, outcome.sample.blobs.values()))
        return arrives(outcome) or ("" if got <= share * whole else f"fetched {got / whole:.1f} times the blobs")

    return check


def chunks_of(least: int) -> Check:
    """It arrives, and each chunk that was followed by another was at least so many bytes."""

    def check(outcome: Outcome) -> str:
        bodies: dict[str, list[int]] = {}
        for one in outcome.requests(r"^(PATCH|PUT) .*/uploads/"):
            bodies.setdefault(one.path, []).append(one.received)
        small = [size for sizes in bodies.values() for size in sizes[:-1] if size < least and sum(sizes) != size]
        return arrives(outcome) or (f"a chunk of {small[0]} bytes" if small else "")

    return check


def lists(*tags: str) -> Check:
    """All the tags are printed."""

    def check(outcome: Outcome) -> str:
        missing = [tag for tag in tags if not re.search(rf"\b{re.escape(tag)}\b", outcome.output)]
        return ended_well(outcome) or (f"not listed: {', '.join(missing[:5])}" if missing else "")

    return check


def fallback(*, wanted: bool, rival: bool = False) -> Check:
    """Whether the fallback tag lists what was attached: with its type and annotations, and beside a rival's."""

    def check(outcome: Outcome) -> str:
        registry, attached = outcome.registry, outcome.attached
        assert attached is not None
        if failed := ended_well(outcome):
            return failed
        if (REPOSITORY, attached.digest) not in registry.manifests:
            return "what was attached is not there"
        digest = registry.tags.get((REPOSITORY, outcome.sample.digest.replace(":", "-")))
        if not wanted:
            return "wrote a fallback tag that nobody needs" if digest else ""
        if digest is None:
            return "no fallback tag"
        rows = {row["digest"]: row for row in json.loads(registry.manifests[REPOSITORY, digest][1])["manifests"]}
        lost = rival and Quirky.rival()["digest"] not in rows
        return _listed(rows.get(attached.digest)) or ("the other writer's entry was lost" if lost else "")

    return check


def _listed(row: dict[str, object] | None) -> str:
    if row is None:
        return "the fallback tag does not list it"
    whole = row.get("artifactType") == "x/note" and row.get("annotations") == {"org.example.note": "kept"}
    return "" if whole else "the fallback tag lists it without its type or annotations"


def _last(output: str) -> str:
    lines = [line.strip() for line in output.strip().splitlines() if line.strip()]
    chosen = next((line for line in lines if "rror" in line), lines[-1] if lines else "")
    for pattern, instead in _SHORTER:
        chosen = re.sub(pattern, instead, chosen)
    return chosen[:160]
