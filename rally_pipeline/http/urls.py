"""URLs come from configuration only: the base URL is checked once, paths and ids are checked on every call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_PATH = re.compile(r"(?:/[A-Za-z0-9\-._~%!$&'()*+,;=:@]*)+")
_DEFAULT_PORTS = {"https": 443, "http": 80}


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL.

    Raises:
        ValueError: it is not an http(s) URL with a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("not an http(s) URL with a host")
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]


def check_base_url(url: str) -> str:
    """The base URL without trailing slash.

    Raises:
        ValueError: neither https nor http on the loopback interface, or with credentials, query or fragment.
    """
    parts = urlsplit(url)
    scheme, host, _ = origin(url)
    if scheme == "http" and host not in LOOPBACK:
        raise ValueError("http would send secrets unencrypted: use https (http is for loopback only)")
    if parts.username is not None or parts.password is not None or "?" in url or "#" in url:
        raise ValueError("the base URL must not hold credentials, a query or a fragment")
    if parts.path:
        check_path(parts.path)
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine.

    Raises:
        ValueError: see `origin`.
    """
    return origin(url)[1] in LOOPBACK


def check_path(path: str) -> None:
    """Refuse a path that would leave the base URL or start a query.

    Raises:
        ValueError: no leading slash, a `.` or `..` segment, or a character that must be percent-encoded.
    """
    if not _PATH.fullmatch(path):
        raise ValueError("a path must start with / and hold only characters that a URL path may hold")
    if "/." in path and not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError("a path must not hold . or .. as a segment")


def quote_segment(value: str | int) -> str:
    """One segment of a path, such as an id from the remote system, quoted so that it stays one segment.

    Raises:
        ValueError: empty, `.` or `..`, or not text that UTF-8 can carry: no server can be asked for that.
    """
    text = str(value)
    if text in ("", ".", ".."):
        raise ValueError(f"'{text}' cannot be a segment of a path")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate cannot be part of a path") from None


def build_url(base_url: str, path: str, params: Mapping[str, str | int] | None) -> str:
    """`base_url` + `path` + query; a `+` in a value is encoded, so that offsets of timestamps survive.

    Raises:
        ValueError: see `check_path`.
    """
    check_path(path)
    query = urlencode(params, quote_via=quote, safe="") if params else ""
    return f"{base_url}{path}?{query}" if query else base_url + path
