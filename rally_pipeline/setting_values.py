"""What the value of a setting may look like. Values come from shells, `.env` files, containers and clipboards.

Refusals say what is wrong and never repeat the value: a key pasted into the wrong variable is still a key.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import IPv6Address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

FEED_START_FORMAT = "%Y-%m-%d-%H:%M"
_EARLIEST_FEED_START = datetime(2010, 1, 1, tzinfo=UTC)
"""The feed's partitions are hours: Dagster lists 150,000 of them, but hardly many more."""

_LONGEST_PATH = 3_000
"""Bytes; systems take 4,096, and files stand below."""

_LONGEST_NAME = 255
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)
_URL_PATH = re.compile(r"(?:/[A-Za-z0-9\-._~%!$&'()*+,;=:@]*)*")
_NOT_IN_A_URL = frozenset('"<>\\^`{|}')


class SettingsError(Exception):
    """A setting is missing or cannot be used; the message names the variable and what to do."""


def clean(text: str) -> str:
    """The value without what it was not meant to hold: blanks around it, also invisible ones, and a pair of quotes.

    `docker --env-file` hands quotes over as part of the value; a file with a key ends in a line break.
    """
    text = _strip(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = _strip(text[1:-1])
    return text


def _strip(text: str) -> str:
    start, end = 0, len(text)
    while start < end and _is_blank(text[start]):
        start += 1
    while end > start and _is_blank(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_blank(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def check_printable(text: str) -> str:
    """Any text of one line.

    Raises:
        ValueError: a line break or another control character in it.
    """
    for place, character in enumerate(text, 1):
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise ValueError(f"character {place} is {_name(character)}: the value must be one line of text")
    return text


def check_token(text: str) -> str:
    """A key, a token or an id that is sent in a header.

    Raises:
        ValueError: a character that no header carries unchanged; most come from copying.
    """
    for place, character in enumerate(text, 1):
        if not "!" <= character <= "~":
            raise ValueError(
                f"character {place} is {_name(character)}: only plain ASCII without blanks can be sent; copy it again"
            )
    return text


def check_api_url(text: str) -> str:
    """The base URL of an API in one spelling: scheme and host in lower case, no slash at the end.

    Raises:
        ValueError: not https (http on loopback), or more than scheme, host, port and path.
    """
    parts = _split(text, "https://acme.rallycrm.io/api/v1")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("this would send the key unencrypted: use https (http is for loopback only)")
    return _join(parts)


def check_webserver_url(text: str) -> str:
    """The URL of a Dagster webserver in one spelling.

    Raises:
        ValueError: not http(s), or more than scheme, host, port and path.
    """
    return _join(_split(text, "http://127.0.0.1:3000"))


def _split(text: str, example: str) -> SplitResult:
    for place, character in enumerate(text, 1):
        if not "!" <= character <= "~" or character in _NOT_IN_A_URL:
            hint = " and write a host of other letters in its xn-- form" if character.isalpha() else ""
            raise ValueError(
                f"character {place} is {_name(character)}, which no URL holds: use one like {example}{hint}"
            )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"the host or the port (1 to 65535) cannot be used, as in {example}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an http(s) URL such as {example}")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError(
            f"user, password, query and fragment do not belong in the URL: expected is {example}"
        )
    if port == 0 or not _is_host(parts.hostname):
        raise ValueError(f"the host or the port (1 to 65535) cannot be used, as in {example}")
    if not _URL_PATH.fullmatch(parts.path) or not {".", ".."}.isdisjoint(parts.path.split("/")):
        raise ValueError(f"the path behind the host cannot be used, as in {example}")
    return parts


def _join(parts: SplitResult) -> str:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{host}{port}{parts.path}".rstrip("/")


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _HOST.fullmatch(host) is not None
    try:
        return IPv6Address(host).scope_id is None
    except ValueError:
        return False


def read_feed_start(value: object) -> object:
    """A whole hour in UTC.

    Raises:
        ValueError: another form, not a whole hour, or unreasonably long ago.
    """
    if isinstance(value, str):
        try:
            value = datetime.strptime(value, FEED_START_FORMAT).replace(tzinfo=UTC)
        except ValueError:
            raise ValueError("not of the form YYYY-MM-DD-HH:MM (UTC), such as 2026-01-01-00:00") from None
    if isinstance(value, datetime):
        if value.minute or value.second or value.microsecond:
            raise ValueError("must be a whole hour, because the feed's partitions are hours: use minutes :00")
        if value < _EARLIEST_FEED_START:
            raise ValueError(
                f"too long ago, each hour is a partition: begin at {_EARLIEST_FEED_START:{FEED_START_FORMAT}} or later"
            )
    return value


def read_folder(value: object) -> object:
    """The path of a folder, `~` resolved; whether it exists is not looked at.

    Raises:
        ValueError: it cannot be a path.
    """
    if not isinstance(value, str | Path):
        return value
    path = _checked(
        lambda: Path(value).expanduser(), "the home folder behind ~ is not known: write the whole path"
    )
    whole = _checked(path.resolve, "its links lead in a circle, or the working folder is gone")
    names = [os.fsencode(name) for name in whole.parts]
    if sum(map(len, names)) > _LONGEST_PATH or max(map(len, names)) > _LONGEST_NAME:
        raise ValueError("the path is too long")
    return path


def _checked(find: Callable[[], Path], problem: str) -> Path:
    try:
        return find()
    except (OSError, RuntimeError, ValueError):
        raise ValueError(problem) from None


def lower_case(value: object) -> object:
    """For words of a fixed list, which people write in capitals as well."""
    return value.lower() if isinstance(value, str) else value


def _name(character: str) -> str:
    """How to tell a person which character it is, also one that cannot be seen."""
    names = {"\n": "a line break", "\r": "a line break", "\t": "a tab", " ": "a blank", "\0": "a NUL"}
    known = names.get(character) or unicodedata.name(character, "").lower()
    code = f"U+{ord(character):04X}"
    return f"{known} ({code})" if known else code
