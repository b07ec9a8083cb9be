"""The upload's ladder: mounts from other repositories, and what of them is refused."""

from __future__ import annotations

import pytest

from builder.registry.quirks import Facts
from builder.registry.upload import Action
from rootfs.errors import TransferError
from rootfs.ports import Request, Response
from tests.fakes.sessions import Sessions
from tests.unit.test_registry_upload import Pushing


def test_a_mount() -> None:
    pushing = Pushing(Sessions(mounts={"base"}))
    assert pushing(mount_from=("base",)).action is Action.MOUNTED
    assert pushing.posts == ["?mount=D&from=base"]


def test_a_mount_that_became_a_session() -> None:
    pushing = Pushing(Sessions())
    assert pushing(mount_from=("base", "other")).action is Action.UPLOADED
    assert pushing.posts == ["?mount=D&from=base"]
    assert pushing.notes.missing == ["base"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_a_mount_that_is_refused(status: int) -> None:
    pushing = Pushing(Sessions(mount_status=status, mounts={"right"}))
    assert pushing(mount_from=("wrong", "right")).action is Action.MOUNTED
    assert pushing.notes.missing == ["wrong"]
    assert pushing.notes.facts.mount is (False if status == 405 else None)


def test_a_token_server_that_refuses_the_other_repository() -> None:
    server = Sessions()

    def refuse(request: Request) -> Response | None:
        if "from=" in request.url:
            raise TransferError("registry refused: a token")
        return None

    server.fault = refuse
    pushing = Pushing(server)
    assert pushing(mount_from=("other",)).action is Action.UPLOADED


def test_an_anonymous_mount() -> None:
    pushing = Pushing(Sessions(anonymous_status=201))
    assert pushing().action is Action.MOUNTED
    assert pushing.notes.facts.anonymous_mount is True


@pytest.mark.parametrize(("status", "learnt"), [(400, False), (405, False), (401, None), (403, None), (404, None)])
def test_an_anonymous_mount_that_is_refused(status: int, learnt: bool | None) -> None:
    """Quay answers 400."""
    pushing = Pushing(Sessions(anonymous_status=status))
    assert pushing().action is Action.UPLOADED
    assert pushing.posts == ["?mount=D", ""]
    assert pushing.notes.facts.anonymous_mount is learnt


def test_an_anonymous_mount_without_an_answer() -> None:
    """No token for it, or a connection that broke: an upload does."""
    server = Sessions()

    def refuse(request: Request) -> Response | None:
        if "mount=" in request.url:
            raise TransferError("no common way to log in")
        return None

    server.fault = refuse
    assert Pushing(server)().action is Action.UPLOADED


def test_mounts_that_are_known_not_to_work_are_not_tried() -> None:
    pushing = Pushing(Sessions())
    pushing(facts=Facts(mount=False, anonymous_mount=False), mount_from=("other",))
    assert pushing.posts == [""]
