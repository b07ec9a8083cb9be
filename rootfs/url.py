"""URLs: their origin, what of them a message may show, and which of them bypass a proxy (RFC 3986, RFC 6454).

Law: pure; knows nothing of connections, and imports no HTTP library.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, parse_qsl, urlencode, urljoin, urlsplit

from rootfs.errors import TransferError

_SHOWN_QUERY = frozenset({"digest", "from", "last", "mount", "n", "ns", "scope", "service", "tag"})


def split(url: str) -> SplitResult:
    """An http or https URL's parts; TransferError when it is none."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and port(parts) > 0:
            return parts
    except ValueError:
        pass
    raise TransferError("not an http or https URL", at=url.partition("?")[0].rpartition("@")[2][:200])


def port(parts: SplitResult) -> int:
    """The port, the scheme's own when none is written."""
    return (443 if parts.scheme == "https" else 80) if parts.port is None else parts.port


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: secrets meant for one origin never go to another."""
    parts = split(url)
    return parts.scheme, parts.hostname or "", port(parts)


def join(base: str, reference: str) -> str:
    """What a Location header means, relative to the URL that was asked (RFC 3986, section 5); http or https."""
    try:
        target = urljoin(base, reference)
    except ValueError as error:
        raise TransferError("an answer leads to no URL", at=redact(base), because=f"to {reference!r:.200}") from error
    split(target)
    return target


def without_user(url: str) -> str:
    """The URL less the user and password before its host."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def redact(url: str) -> str:
    """The URL as a message may show it: no user, no password, no query values but the ones known to be harmless."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    host = parts.netloc.rpartition("@")[2]
    query = parse_qsl(parts.query, keep_blank_values=True)
    shown = urlencode([(name, value if name in _SHOWN_QUERY else "***") for name, value in query], safe="*:/,")
    return parts._replace(netloc=f"***@{host}" if host != parts.netloc else host, query=shown, fragment="").geturl()


def bypasses(pattern: str, url: str) -> bool:
    """Whether an entry of NO_PROXY names the URL's host.

    An entry is `*`, an address, a network, or a host name (its subdomains too) with or without a port.
    """
    _, host, number = origin(url)
    if pattern == "*":
        return True
    try:
        return ip_address(host) in ip_network(pattern, strict=False)
    except ValueError:
        name, _, only = pattern.strip().lower().partition(":")
    name = name.removeprefix("*").lstrip(".")
    return bool(name) and only in ("", str(number)) and (host == name or host.endswith(f".{name}"))
