"""Listings of a repository: page by page, never to another host, never in a circle; what is deleted, and what not."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest

from builder.oci.descriptor import INDEX, MANIFEST, Descriptor
from builder.oci.manifest import Index
from builder.registry.listing import delete, referrers, tags
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, OcibuildError, TransferError
from rootfs.ports import Request, Response
from tests.fakes.transport import reply

URL = "https://r.example.org/v2/a"
ONE, TWO = (
    Descriptor(media_type=MANIFEST, digest=Digest.of(data), size=3, artifact_type=kind)
    for data, kind in ((b"one", "text/plain"), (b"two", "text/html"))
)


Answer = tuple[int, bytes, dict[str, str]]


def run(dialogue: Generator[Request, Response, object], answers: dict[str, Answer]) -> object:
    """Hold a dialogue with fixed answers."""
    try:
        request = next(dialogue)
        while True:
            status, body, headers = answers.get(request.url.removeprefix(f"{URL}/"), (404, b"{}", {}))
            request = dialogue.send(reply(request, status, body, headers))
    except StopIteration as end:
        return end.value


def page(*names: str, link: str = "") -> Answer:
    headers = {"Link": link} if link else {}
    return 200, json.dumps({"name": "a", "tags": list(names)}).encode(), headers


def index(*entries: Descriptor, link: str = "", **headers: str) -> Answer:
    told = {"Content-Type": INDEX, **headers} | ({"Link": link} if link else {})
    return 200, Index(manifests=entries).to_bytes(), told


def test_pages_follow_links_though_they_give_less_than_was_asked_for() -> None:
    answers = {
        "tags/list?n=1000": page("1", "2", link='</v2/a/tags/list?n=2&last=2>; rel="next"'),
        "tags/list?n=2&last=2": page(link=f"<{URL}/tags/list?x=1>; foo=bar; rel=next"),
        "tags/list?x=1": page("3", "1", link='<other>; rel="prev"'),
    }
    assert run(tags(URL), answers) == ("1", "2", "3")


def test_a_registry_that_wants_to_be_asked_for_less() -> None:
    answers = {"tags/list?n=1000": (400, b"{}", {}), "tags/list": page("1")}
    assert run(tags(URL), answers) == ("1",)
    assert run(tags(URL), {"tags/list?n=1000": (200, b'{"name":"a","tags":null}', {})}) == ()


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (page("1", link="<https://evil.example/v2/a/tags/list>; rel=next"), TransferError, "another host"),
        (page("1", link="<http://r.example.org/v2/a/tags/list>; rel=next"), TransferError, "another host"),
        (page("1", link="</v2/a/tags/list?n=1000>; rel=next"), TransferError, "no end"),
        ((403, b'{"errors":[{"code":"DENIED"}]}', {}), TransferError, "DENIED"),
        ((200, b"<html>", {}), IntegrityError, "cannot be read"),
        ((200, b'{"tags":[1]}', {}), IntegrityError, "not of type str"),
        ((200, b'{"tags":"1"}', {}), IntegrityError, "not of type list"),
    ],
)
def test_bad_listings_are_refused(answer: Answer, error: type[OcibuildError], said: str) -> None:
    with pytest.raises(error) as caught:
        run(tags(URL), {"tags/list?n=1000": answer})
    assert said in caught.value.render()


def test_referrers_come_in_pages_and_are_filtered_here_when_not_there() -> None:
    name = f"referrers/{Digest.of(b'x')}"
    answers = {name: index(ONE, link=f"</v2/a/{name}?page=2>; rel=next"), f"{name}?page=2": index(TWO, ONE)}
    assert run(referrers(URL, Digest.of(b"x")), answers) == (ONE, TWO)
    answers = {f"{name}?artifactType=text%2Fhtml": index(ONE, TWO)}
    assert run(referrers(URL, Digest.of(b"x"), "text/html"), answers) == (TWO,)


@pytest.mark.parametrize("answer", [(404, b"", {}), (405, b"", {}), (200, b"<html>", {"Content-Type": "text/html"})])
def test_a_registry_without_the_api_is_told_apart(answer: Answer) -> None:
    assert run(referrers(URL, Digest.of(b"x")), {f"referrers/{Digest.of(b'x')}": answer}) is None


def test_a_broken_list_of_referrers_is_refused() -> None:
    name = f"referrers/{Digest.of(b'x')}"
    for answer in ((200, b"{}", {"Content-Type": INDEX}), (401, b"", {})):
        with pytest.raises(OcibuildError):
            run(referrers(URL, Digest.of(b"x")), {name: answer})


@pytest.mark.parametrize(("status", "done"), [(202, True), (200, True), (405, False), (400, False), (501, False)])
def test_delete_says_whether_the_registry_does_such_a_thing(status: int, done: bool) -> None:
    assert run(delete(URL, "1"), {"manifests/1": (status, b"", {})}) is done


def test_what_is_not_there_cannot_be_deleted() -> None:
    with pytest.raises(TransferError, match="to delete 1"):
        run(delete(URL, "1"), {})
