"""A real olareg: the registry with the referrers API, several tags in one request, sha512, and tokens of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.peers.daemon import daemon, free_port
from tests.peers.registry import HTPASSWD, USER


@contextmanager
def olareg(
    program: str,
    place: Path,
    *,
    tokens: bool = False,
    referrers: bool = True,
    rate_limit: int = 0,
    warnings: Sequence[str] = (),
) -> Iterator[str]:
    """`localhost:PORT` of a registry that keeps image layouts below `place`/blobs; everything can be deleted.

    With `tokens` the users of `tests.peers.registry` alone may push, anybody may pull below `public/`, and the token
    server is the registry itself. `rate_limit` is requests a second; `warnings` come with every answer.
    """
    (place / "blobs").mkdir(parents=True, exist_ok=True)
    port = free_port()
    argv = [program, "serve", "--addr", "127.0.0.1", "--port", str(port), "--dir", str(place / "blobs")]
    argv += ["--api-delete", "--api-blob-delete", "--gc-frequency=-1s", f"--api-referrer={str(referrers).lower()}"]
    argv += [f"--rate-limit={rate_limit}"] if rate_limit else []
    argv += [f"--warning={warning}" for warning in warnings]
    if tokens:
        (place / "users.json").write_text(json.dumps(_users()))  # YAML, of which JSON is a part
        argv += ["--auth-token-opaque", str(place / "users.json"), "--external-url", f"http://localhost:{port}"]
    with daemon(argv, port, place / "log"):
        yield f"localhost:{port}"


def _users() -> dict[str, object]:
    cred = HTPASSWD.strip().partition(":")[2]
    everything = {"repo": "*", "members": [USER], "access": ["read", "write", "delete"]}
    ping = {"repo": "", "members": [USER], "anonymous": True, "access": ["read"]}
    public = {"repo": "public/*", "anonymous": True, "access": ["read"]}
    return {"users": {USER: {"cred": cred}}, "groups": {}, "acls": [everything, ping, public]}
