"""The table of quirks, and the facts of a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.registry.advice import advice
from builder.registry.quirks import MIB, TABLE, Facts, known_of, names
from rootfs.ports import Response


@pytest.mark.parametrize(
    ("host", "facts"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Facts(chunks=False, anonymous_mount=False)),
        ("europe-west3-docker.pkg.dev", Facts(chunks=False)),
        ("eu.gcr.io", Facts(chunks=False)),
        ("GHCR.io:443", Facts(max_chunk=4 * MIB, referrers=False)),
        ("quay.io", Facts(anonymous_mount=False)),
        ("registry.example.org", Facts()),
        ("notquay.io", Facts()),
        ("localhost:5000", Facts()),
        ("[::1]:5000", Facts()),
    ],
)
def test_known_of(host: str, facts: Facts) -> None:
    assert known_of(host) == facts


def test_every_row_says_who_says_so() -> None:
    assert all(row.hosts and row.why and row.source and row.facts.to_dict() for row in TABLE)


def test_what_is_learnt_stands_above() -> None:
    learnt = Facts(chunks=True, max_body=5)
    assert learnt.over(Facts(chunks=False, mount=False)) == Facts(chunks=True, max_body=5, mount=False)
    assert Facts.from_dict(learnt.to_dict()) == learnt
    assert Facts.from_dict({"chunks": "yes", "max_body": True, "mount": 1, "other": 2}) == Facts()


def said(header: str) -> list[str]:
    return list(advice(Response(status=200, url="https://r/", headers={"Warning": header}, chunks=iter(()))))


def test_advice() -> None:
    assert said('299 - "v1 goes \\"soon\\"", 299 - "second"') == ['v1 goes "soon"', "second"]
    assert said('299 - "\x1b[31mred\x07"') == ["[31mred"]
    assert said(f'299 - "{"x" * 999}"') == ["x" * 300]
    assert said('199 - "other code"') == said('299 agent "x"') == said("299 - unquoted") == said("") == []


def test_the_page_has_every_row() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/registry-quirks.md").read_text()
    for row in TABLE:
        hosts = ", ".join(f"`{host}`" for host in row.hosts)
        assert f"| {row.registry} | {hosts} |" in page
        assert f"| {row.why} | {row.source} |" in page
    assert all(f"| `{name}` |" in page for name in names())
