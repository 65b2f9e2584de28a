"""Secrets never leave the process: not in logs, not in errors, not in answers quoted in either."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import quote

MASK = "***"
EXCERPT_LENGTH = 200
_SHORTEST_SECRET = 4
_QUOTED_BYTES = 4_096

# Shapes of secrets that are masked even when the value is not configured here, such as another tenant's key
# in the text of an answer. Every pattern is linear in the length of the text.
_SHAPES = (
    (re.compile(r"\b(?:rk|sk|pk)_(?:live|test)_[A-Za-z0-9_\-]+"), MASK),
    (re.compile(r"\bwhsec_[A-Za-z0-9_\-+/=]+"), MASK),
    (re.compile(r"(?i)\b(bearer\s{1,8})[A-Za-z0-9._~+/\-]{4,}=*"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(x-api-key['\"]?\s{0,8}[:=]\s{0,8}['\"]?)[^\s'\",;]+"), rf"\1{MASK}"),
    (re.compile(r"(://[^\s:/@]{1,64}:)[^\s/@]{1,256}@"), rf"\1{MASK}@"),
    (re.compile(r"\b[A-Fa-f0-9]{64}\b"), MASK),
)
_CONTROLS = (range(0x20), range(0x7F, 0xA0), range(0x2028, 0x202F), range(0x2066, 0x206A), (0xFEFF,))
_ESCAPES = {
    code: f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" for codes in _CONTROLS for code in codes
}
_SPACE = re.compile(r"\s+")
_PLAIN_RECORD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Every form in which the secrets may appear in a text, longest first.

    Values shorter than four characters are left out: masking them would garble every text and hide nothing.
    """
    return _spellings(tuple(secrets))


@lru_cache(maxsize=64)
def _spellings(secrets: tuple[str, ...]) -> tuple[str, ...]:
    found = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            in_json = secret.replace("\\", "\\\\").replace('"', '\\"')
            found |= {secret, in_json, quote(secret), quote(secret, safe="")}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with every secret, and everything that looks like one, replaced by `***`."""
    for value in spellings(secrets):
        text = text.replace(value, MASK)
    for shape, mask in _SHAPES:
        text = shape.sub(mask, text)
    return text


def escape(text: str) -> str:
    """`text` on one line: control, bidirectional and separator characters written as escapes."""
    return text.translate(_ESCAPES)


def excerpt(body: bytes | str, secrets: Sequence[str] = ()) -> str:
    """At most 200 characters of an answer's body for a message: redacted, on one line, controls escaped."""
    text = (
        body[:_QUOTED_BYTES].decode("utf-8", "replace") if isinstance(body, bytes) else body[:_QUOTED_BYTES]
    )
    text = redact(text, secrets)
    if len(body) > _QUOTED_BYTES:
        # A secret that the cut went through is not recognised any more: what it may cover is left out.
        text = text[: len(text) - max(map(len, secrets), default=0) - 64]
    text = escape(_SPACE.sub(" ", text).strip())
    return text if len(text) <= EXCERPT_LENGTH else text[: EXCERPT_LENGTH - 1] + "…"


class RedactingFilter(logging.Filter):
    """Masks secrets in a log record's message, extra fields and traceback.

    Attach it to handlers (a filter of a logger does not see the records of its children).
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = spellings(secrets)

    def __repr__(self) -> str:
        return f"RedactingFilter({len(self._secrets)} spellings)"

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite `record` in place; it is always kept."""
        message = record.getMessage()
        clean = redact(message, self._secrets)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            clean = redact(record.exc_text, self._secrets)
            if clean != record.exc_text:
                # A formatter that renders the exception by itself would bring the secret back.
                record.exc_text, record.exc_info = clean, None
        if record.stack_info:
            record.stack_info = redact(record.stack_info, self._secrets)
        for name in record.__dict__.keys() - _PLAIN_RECORD:
            value = record.__dict__[name]
            if isinstance(value, str) and name != "message":
                record.__dict__[name] = redact(value, self._secrets)
        return True
