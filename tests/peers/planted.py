"""Secrets that were planted, and where they turn up: in files, in what was printed, in arguments, on the wire.

A secret is looked for as it is, and as base64, percent-encoding, JSON and hexadecimal digits would write it.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

_AUTHORIZATION = re.compile(rb"(?im)^authorization:[^\r\n]*\r?$")
_TOKEN = re.compile(rb"\beyJ[\w-]{16,}\.eyJ[\w-]{16,}\.[\w-]{32,}|\bquirky-[0-9a-f]{32}\b")
_BEARER = re.compile(rb"(?im)^authorization: *bearer +([^\r\n]+?)\r?$")


class Planted:
    """The secrets, by what they are."""

    def __init__(self, **secrets: str) -> None:
        self._forms: dict[bytes, str] = {}
        for what, secret in secrets.items():
            self.add(what, secret)

    def add(self, what: str, secret: str) -> None:
        """One more."""
        plain = secret.encode()
        texts = {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], plain.hex()}
        texts |= {base64.b64encode(plain).decode().rstrip("="), base64.urlsafe_b64encode(plain).decode().rstrip("=")}
        self._forms |= {text.encode(): what for text in texts}

    def account(self, user: str, password: str) -> None:
        """A password, and the pair that Basic sends."""
        self.add("password", password)
        self.add("account", f"{user}:{password}")

    def in_data(self, data: bytes) -> str:
        """Which secret is in it, or whether a token of the token servers of tests/peers; "" for none."""
        found = next((what for form, what in self._forms.items() if form in data), "")
        return found or ("token" if _TOKEN.search(data) else "")

    def in_files(self, place: Path, allowed: Iterable[Path] = ()) -> list[str]:
        """The files below a place, and names of files, that have one; `allowed` are files that shall have it."""
        found = []
        for path in sorted(place.rglob("*")):
            if path in allowed:
                continue
            data = path.read_bytes() if path.is_file() else b""
            if what := self.in_data(str(path.relative_to(place)).encode()) or self.in_data(data):
                found.append(f"{what} in {path.relative_to(place)}")
        return found

    def sent(self, capture: bytes) -> str:
        """What of them a client's bytes (plain http) hold anywhere but in Authorization headers; "" for none."""
        return self.in_data(_AUTHORIZATION.sub(b"", capture))

    def learn(self, capture: bytes) -> int:
        """The tokens that Authorization headers carried are secrets, too; how many there are."""
        tokens = set(_BEARER.findall(capture))
        for token in tokens:
            self.add("token", token.decode())
        return len(tokens)


@contextmanager
def arguments() -> Iterator[set[bytes]]:
    """The arguments of every process that was there at some moment of the `with`, looked at all the time."""
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
