#!/usr/local/bin/python3 -IS
"""`ldconfig -p`: what ctypes.util.find_library, and wheels like it, ask for the libraries that there are.

Law: this file is part of images without Debian's ldconfig(8) (as /usr/sbin/ldconfig; that one is a static program of a
megabyte), not of ocibuild. It reads /etc/ld.so.cache as glibc 2.33 and later write it (dl-cache.h), and no more.
"""

import struct
import sys

_CACHE = "/etc/ld.so.cache"
_HEADER, _ENTRY = struct.Struct("=20sII20x"), struct.Struct("=iIIIQ")
_ABI = {3: ",x86-64", 4: ",64bit", 5: ",64bit", 9: ",hard-float", 10: ",AArch64", 16: ",double-float"}


def listing(cache: bytes) -> str:
    """The names and paths of the libraries in a cache, as ldconfig prints them; struct.error when it is no cache."""
    _, count, _ = _HEADER.unpack_from(cache)
    lines = [f"{count} libs found in cache `{_CACHE}'"]
    for place in range(count):
        flags, name, path, _, _ = _ENTRY.unpack_from(cache, _HEADER.size + place * _ENTRY.size)
        abi = _ABI.get(flags >> 8, "")
        lines.append(f"\t{_text(cache, name)} (libc6{abi}) => {_text(cache, path)}")
    return "\n".join(lines) + "\n"


def _text(cache: bytes, start: int) -> str:
    return cache[start : cache.index(b"\0", start)].decode(errors="surrogateescape")


def main(argv: list[str]) -> None:
    """Print the list for `-p`; SystemExit for anything else."""
    if argv not in (["-p"], ["--print-cache"]):
        raise SystemExit("ldconfig: this image has no ldconfig(8); what stands for it only knows -p")
    with open(_CACHE, "rb") as stream:  # noqa: PTH123 (pathlib takes longer to import than all the rest)
        sys.stdout.write(listing(stream.read()))


if __name__ == "__main__":
    main(sys.argv[1:])
