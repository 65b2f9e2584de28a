"""Faults in the content of an answer that arrives whole: not JSON, hostile JSON, wrong encodings."""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache

from .fault import Exchange, FaultFunction
from .status_faults import error_answer
from .wire import JSON_TYPE, Answer


def html_200(_exchange: Exchange) -> Answer:
    """A login page where data was asked for."""
    page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>Sign in</form></body></html>"
    return Answer.text(page, 200, "text/html; charset=utf-8")


def empty_200(_exchange: Exchange) -> Answer:
    """A 200 with no body at all."""
    return Answer(200, {"Content-Type": JSON_TYPE})


def error_200(_exchange: Exchange) -> Answer:
    """An error object under a 200."""
    return Answer.json({"error": "backend unavailable", "message": "try again later"})


def odd_success(exchange: Exchange, *, status: int = 206) -> Answer:
    """The right body under another 2xx."""
    answer = exchange.apply()
    answer.status = status
    return answer


def wrong_shape(exchange: Exchange) -> Answer:
    """An object where an array belongs, and the reverse."""
    answer = exchange.apply()
    answer.body = (
        b'{"rows":%d}' % len(answer.body) if answer.body.startswith(b"[") else b"[" + answer.body + b"]"
    )
    return answer


def null_200(_exchange: Exchange) -> Answer:
    """The JSON value null."""
    return Answer.raw_json(b"null")


def wrong_type(exchange: Exchange, *, content_type: str = "text/plain") -> Answer:
    """JSON under another Content-Type."""
    answer = exchange.apply()
    answer.headers["Content-Type"] = content_type
    return answer


def no_type(exchange: Exchange) -> Answer:
    """JSON without a Content-Type."""
    answer = exchange.apply()
    answer.headers.pop("Content-Type", None)
    return answer


def byte_order_mark(exchange: Exchange) -> Answer:
    """UTF-8 with a byte-order mark."""
    answer = exchange.apply()
    answer.body = b"\xef\xbb\xbf" + answer.body
    return answer


def utf_16(exchange: Exchange) -> Answer:
    """The body in UTF-16, and the header says so."""
    answer = exchange.apply()
    answer.body = answer.body.decode().encode("utf-16")
    answer.headers["Content-Type"] = "application/json; charset=utf-16"
    return answer


def latin_1(exchange: Exchange) -> Answer:
    """The body ends in a byte that is not UTF-8, inside a string."""
    answer = exchange.apply()
    cut = answer.body.rfind(b'"')
    answer.body = answer.body[:cut] + b"\xe9" + answer.body[cut:] if cut > 0 else b'["\xe9"]'
    return answer


def cut_json(exchange: Exchange, *, at: int | None = None) -> Answer:
    """Only the first `at` bytes (None: half), with a Content-Length that fits: HTTP sees nothing wrong."""
    answer = exchange.apply()
    answer.body = answer.body[: len(answer.body) // 2 if at is None else at]
    return answer


def duplicate_keys(exchange: Exchange) -> Answer:
    """The first object carries its first key twice, with different values."""
    return _with_first_member(exchange.apply(), b'"id":"00000000-0000-4000-8000-000000000000",')


def nan(exchange: Exchange, *, literal: str = "NaN") -> Answer:
    """The first object carries a member that is no JSON number: `NaN`, `Infinity`, `-Infinity`."""
    return _with_first_member(exchange.apply(), b'"score":' + literal.encode() + b",")


def huge_number(exchange: Exchange, *, literal: str = "1e999") -> Answer:
    """The first object carries a number that no float holds."""
    return _with_first_member(exchange.apply(), b'"score":' + literal.encode() + b",")


def long_integer(exchange: Exchange, *, digits: int = 5000) -> Answer:
    """The first object carries an integer of `digits` digits."""
    return _with_first_member(exchange.apply(), b'"score":' + b"9" * digits + b",")


def deep_json(exchange: Exchange, *, depth: int = 100_000) -> Answer:
    """Arrays nested `depth` deep, well-formed."""
    exchange.apply()
    return Answer.raw_json(b"[" * depth + b"]" * depth)


def many_keys(exchange: Exchange, *, keys: int = 10_000) -> Answer:
    """The first object carries `keys` further members."""
    members = b"".join(b'"x%d":%d,' % (number, number) for number in range(keys))
    return _with_first_member(exchange.apply(), members)


def gzip_body(exchange: Exchange) -> Answer:
    """No fault: the body is compressed and says so."""
    answer = exchange.apply()
    answer.body = gzip.compress(answer.body, 6, mtime=0)
    answer.headers["Content-Encoding"] = "gzip"
    return answer


def wrong_gzip(exchange: Exchange) -> Answer:
    """The header says gzip, the body is plain."""
    answer = exchange.apply()
    answer.headers["Content-Encoding"] = "gzip"
    return answer


def cut_gzip(exchange: Exchange) -> Answer:
    """A gzip stream that stops in the middle, with a Content-Length that fits."""
    answer = gzip_body(exchange)
    answer.body = answer.body[: len(answer.body) // 2]
    return answer


def gzip_bomb(exchange: Exchange, *, size: int = 200_000_000) -> Answer:
    """A small body that unpacks to `size` bytes."""
    exchange.apply()
    return Answer(200, {"Content-Type": JSON_TYPE, "Content-Encoding": "gzip"}, _bomb(size))


def not_found_page(_exchange: Exchange) -> Answer:
    """A 404 with a web page."""
    return error_answer(404, "html")


@lru_cache(maxsize=2)
def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = b" " * 65_536
    whole, rest = divmod(max(0, size - 2), len(block))
    parts = [packer.compress(b"[")]
    parts.extend(packer.compress(block) for _ in range(whole))
    parts.append(packer.compress(block[:rest] + b"]"))
    parts.append(packer.flush())
    return b"".join(parts)


def _with_first_member(answer: Answer, member: bytes) -> Answer:
    start = answer.body.find(b"{")
    if start < 0 or answer.body[start + 1 : start + 2] == b"}":
        answer.body = b"[{" + member.rstrip(b",") + b"}]"
    else:
        answer.body = answer.body[: start + 1] + member + answer.body[start + 1 :]
    return answer


CONTENT_FAULTS: dict[str, FaultFunction] = {
    play.__name__: play
    for play in (
        html_200,
        empty_200,
        error_200,
        odd_success,
        wrong_shape,
        null_200,
        wrong_type,
        no_type,
        byte_order_mark,
        utf_16,
        latin_1,
        cut_json,
        duplicate_keys,
        nan,
        huge_number,
        long_integer,
        deep_json,
        many_keys,
        gzip_body,
        wrong_gzip,
        cut_gzip,
        gzip_bomb,
        not_found_page,
    )
}
