"""Copying a part of one file to another: inside the kernel where that goes, else by reading and writing."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from rootfs.errors import HostError
from rootfs.files import STDOUT, Flusher, copy, host_error, locked, replacing, require_replaceable

CONTENT = bytes(range(256)) * 8192  # 2 MiB: more than one read


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def copied(source: Path, target: Path, *, offset: int, size: int) -> int:
    with source.open("rb") as stream, replacing(target) as made:
        return copy(stream, made.fileno(), offset=offset, size=size)


def refuse(number: int) -> object:
    def copy_file_range(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return copy_file_range


@pytest.mark.parametrize("refused", [None, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_part_is_copied_whatever_the_file_systems_allow(
    refused: int | None, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refused is not None:
        monkeypatch.setattr(os, "copy_file_range", refuse(refused))
    size = len(CONTENT) - 300
    assert copied(source, tmp_path / "target", offset=100, size=size) == size
    assert (tmp_path / "target").read_bytes() == CONTENT[100:-200]


def test_a_source_that_is_too_short_is_told_by_the_number_of_bytes(source: Path, tmp_path: Path) -> None:
    assert copied(source, tmp_path / "target", offset=len(CONTENT) - 5, size=10) == 5
    assert (tmp_path / "target").read_bytes() == CONTENT[-5:]


def test_a_stream_without_a_file_is_read(tmp_path: Path) -> None:
    with replacing(tmp_path / "target") as made:
        assert copy(io.BytesIO(CONTENT), made.fileno(), offset=1, size=4) == 4
    assert (tmp_path / "target").read_bytes() == CONTENT[1:5]


def test_a_disk_that_is_full_is_no_reason_to_try_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.ENOSPC))
    with (
        source.open("rb") as stream,
        (tmp_path / "target").open("wb") as made,
        pytest.raises(OSError, match="No space"),
    ):
        copy(stream, made.fileno(), offset=0, size=10)


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    """As a device is not: found when `extract --output /dev/null`, run by root, put a plain file there."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (pipe, link := tmp_path / "link"):
        if target is link:
            link.symlink_to(pipe)
        with pytest.raises(HostError) as caught, replacing(target):
            raise AssertionError("the block ran")
        assert caught.value.because == "it is a device, a pipe or a socket"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_directory_is_named_itself(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught, replacing(tmp_path):
        raise AssertionError("the block ran")
    assert str(tmp_path) in str(caught.value)
    assert caught.value.because == "it is a directory"


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as first:
        assert first
        with locked(path) as second:
            assert not second
    with locked(path) as third:
        assert third
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_the_way_out_names_no_option_that_the_verb_at_hand_may_lack(code: int) -> None:
    error = host_error(OSError(code, os.strerror(code)), Path("/somewhere"))
    assert error.hint
    assert "OCIBUILD_STORE" in error.hint
    assert "--" not in error.hint


def test_what_the_disk_refuses_meanwhile_is_raised_in_the_end(tmp_path: Path) -> None:
    """fdatasync(2) of a pipe is refused as a disk refuses what it cannot keep."""
    receiving, sending = os.pipe()
    try:
        flusher = Flusher(sending)
        flusher.begin()
        with pytest.raises(OSError, match="Invalid argument"):
            flusher.close()
    finally:
        os.close(receiving)
        os.close(sending)
    with (tmp_path / "file").open("wb") as stream:
        stream.write(b"x")
        flusher = Flusher(stream.fileno())
        flusher.begin()
        flusher.begin()
        flusher.close()


def test_what_cannot_be_replaced_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for target in (tmp_path / "file/receipt.json", tmp_path):
        with pytest.raises(HostError):
            require_replaceable(target)
    for target in (tmp_path / "file", tmp_path / "new/receipt.json", STDOUT):
        require_replaceable(target)
    assert (tmp_path / "file").read_text() == "kept"
    assert [path.name for path in (tmp_path / "new").iterdir()] == []
