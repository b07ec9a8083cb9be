"""Copying a part of one file to another: inside the kernel where that goes, else by reading and writing."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import NoReturn

import pytest

from rootfs.files import copy, replacing

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
