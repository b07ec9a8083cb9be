"""URLs: what bypasses a proxy, and what a message may show."""

from __future__ import annotations

import pytest

from rootfs.url import bypasses, redact


@pytest.mark.parametrize(
    ("pattern", "url", "expected"),
    [
        ("*", "http://a.example/", True),
        ("example", "http://a.example/", True),
        (".example", "http://a.example/", True),
        ("*.example", "http://a.example/", True),
        ("a.example:80", "http://a.example/", True),
        ("a.example:80", "https://a.example/", False),
        ("A.Example", "http://a.example/", True),
        ("b.example", "http://ab.example/", False),
        ("10.0.0.0/8", "http://10.1.2.3:5000/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.1.2.3", "http://10.1.2.3/", True),
        ("::1", "http://[::1]:80/", True),
        ("", "http://a.example/", False),
    ],
)
def test_no_proxy(pattern: str, url: str, expected: bool) -> None:
    assert bypasses(pattern, url) is expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/p?a=1#f", "https://h/p?a=***"),
        ("https://u:p@h:5/p", "https://***@h:5/p"),
        ("https://h/v2/x?mount=sha256:ab&from=a/b", "https://h/v2/x?mount=sha256:ab&from=a/b"),
        ("http://[::1/", "(not a URL)"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown
