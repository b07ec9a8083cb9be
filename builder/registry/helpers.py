"""Credential helpers: the programs `docker-credential-NAME` that keep accounts for docker and podman.

Law: a secret goes through the helper's stdin and stdout, never through argv; what a helper says when it fails is shown
only when it cannot be a secret. The protocol is that of docker-credential-helpers: `get`, `store` and `erase`.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from builder.registry.auth import Credentials
from builder.registry.credentials import helper_input, parse_helper
from rootfs.errors import HostError

PATIENCE = 30.0
"""Seconds; a helper may ask its user to unlock a key ring."""
_NOT_FOUND = "credentials not found"
_SHOWN = 200


def fetch(name: str, server: str, *, patience: float = PATIENCE) -> Credentials | None:
    """The account a helper keeps for a server; None when it has none, HostError when it cannot be asked."""
    status, output = _run(name, "get", server.encode(), patience)
    if status == 0:
        return parse_helper(output, _program(name))
    said = _said(output)
    if _NOT_FOUND in said.lower():
        return None
    raise _failed(name, "get", status, said)


def keep(name: str, server: str, credentials: Credentials) -> None:
    """Have a helper keep an account; HostError when it does not."""
    status, output = _run(name, "store", helper_input(server, credentials), PATIENCE)
    if status != 0:
        raise _failed(name, "store", status, _said(output))


def erase(name: str, server: str) -> None:
    """Have a helper forget an account; HostError when it does not."""
    status, output = _run(name, "erase", server.encode(), PATIENCE)
    said = _said(output)
    if status != 0 and _NOT_FOUND not in said.lower():
        raise _failed(name, "erase", status, said)


def _program(name: str) -> str:
    return f"docker-credential-{name}"


def _run(name: str, verb: str, told: bytes, patience: float) -> tuple[int, bytes]:
    """Exit status and stdout; a helper that takes too long is ended, with all it started."""
    import subprocess  # noqa: PLC0415 (few have a helper, and fewer runs ask it)

    program = _program(name)
    try:
        process = subprocess.Popen(
            [program, verb],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
    except FileNotFoundError as error:
        hint = f"install it, or take `{name}` out of the file that names it"
        raise HostError(f"{program} is not on the PATH", hint=hint) from error
    except OSError as error:
        raise HostError(f"{program} cannot be run", because=error.strerror) from error
    with process:
        try:
            output, _ = process.communicate(told, timeout=patience)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise HostError(f"{program} {verb} did not answer", because=f"within {patience:g} seconds") from None
            raise
    return process.returncode, output


def _said(output: bytes) -> str:
    """The first line of an error; nothing when it may be an answer with a secret in it."""
    line = output.decode("utf-8", "replace").strip().partition("\n")[0]
    return "" if "{" in line else "".join(character for character in line if character.isprintable())[:_SHOWN]


def _failed(name: str, verb: str, status: int, said: str) -> HostError:
    return HostError(f"{_program(name)} {verb} failed", because=f"exit status {status}{said and f': {said}'}")
