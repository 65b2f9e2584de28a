"""From an answer that does not fit to the error that says so."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec

from rally_pipeline.http.errors import ApiError, BadAnswer, NotTheApi, OversizedAnswer, Throttled, error_type
from rally_pipeline.http.redaction import excerpt
from rally_pipeline.http.throttle import LONGEST_WAIT, server_seconds, server_wait, stated_wait
from rally_pipeline.http.transport import Response
from rally_pipeline.http.waits import moment

_START = 512
_LARGEST_ERROR_BODY = 64 * 1024
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<>]{1,400})</title", re.IGNORECASE)
_WORDS = ("title", "detail", "message", "error_description", "error", "errors", "details")
_DEEPEST = 4
_FARTHEST_RESET = 86_400.0 * 400


def bad_answer(response: Response, detail: str, *, quote: bool = False) -> BadAnswer:
    """The error for a 2xx answer that does not fit; `quote` adds an excerpt (never of records: they are private)."""
    caller = response.caller
    kind = OversizedAnswer if response.is_oversized else BadAnswer
    return kind(
        caller.system,
        caller.method,
        caller.path,
        status=response.status,
        detail=detail,
        excerpt=_explanation(response) if quote else "",
    )


def not_the_api(response: Response, detail: str) -> NotTheApi:
    """The error for a 2xx of something that is not the system that was meant."""
    caller = response.caller
    excerpt = _explanation(response) if is_page(response) else ""
    return NotTheApi(
        caller.system, caller.method, caller.path, status=response.status, detail=detail, excerpt=excerpt
    )


def is_page(response: Response) -> bool:
    """Whether the body is a web page, such as a login, a proxy's notice, or a maintenance."""
    return response.body[:_START].removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<"


def answer_error(response: Response) -> ApiError:
    """The error that an answer stands for which is not a whole 200, 201, 202 or 204."""
    status, caller = response.status, response.caller
    if 200 <= status < 300 or status < 200:
        return bad_answer(response, response.problem or "not a complete answer")
    kind = error_type(status)
    if 300 <= status < 400:
        detail = f"{status} redirect to {_target(response)}, not followed: correct the base URL"
        return kind(caller.system, caller.method, caller.path, status=status, detail=detail)
    detail = f"{status} {_phrase(status)}".rstrip() + _reset_of(response)
    error = kind(
        caller.system,
        caller.method,
        caller.path,
        status=status,
        detail=detail,
        excerpt=_explanation(response),
    )
    if isinstance(error, Throttled):
        error.wait_seconds = server_wait(response)
    return error


def _reset_of(response: Response) -> str:
    """When a server that refuses for longer than is waited at once says that it will go on."""
    wait, now = stated_wait(response), server_seconds(response)
    if response.status != HTTPStatus.TOO_MANY_REQUESTS or wait is None or now is None or wait <= LONGEST_WAIT:
        return ""
    return f", requests are taken again at {moment(now + wait)}" if wait < _FARTHEST_RESET else ""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _target(response: Response) -> str:
    location = response.headers.get("location")
    if not location:
        return "nowhere"
    try:
        host = urlsplit(location).hostname
    except ValueError:
        return "an unreadable address"
    return excerpt(host, response.caller.secrets) if host else "the same host"


def _explanation(response: Response) -> str:
    """What the body says about the error, in at most 200 clean characters."""
    body = response.body.removeprefix(codecs.BOM_UTF8)
    secrets = response.caller.secrets
    if body[:1] == b"{" and len(body) <= _LARGEST_ERROR_BODY:
        try:
            content = msgspec.json.decode(body, type=dict[str, object])
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return excerpt(body, secrets)
        found = [content[word] for word in _WORDS if word in content]
        text = "; ".join(dict.fromkeys(part for value in found for part in _texts(value, 0)))
        return excerpt(text or body, secrets)
    start = body[:4096].decode("utf-8", "replace")
    if start.lstrip()[:1] == "<":
        title = _TITLE.search(start)
        return excerpt(f"HTML: {title[1]}" if title else "HTML without a title", secrets)
    return excerpt(body, secrets)


def _texts(value: object, depth: int) -> Iterator[str]:
    """The texts in an error's member, names of fields put before what is said about them."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, dict):
        telling = [name for name in _WORDS if name in value]
        for name in telling or value:
            for text in _texts(value[name], depth + 1):
                yield text if telling else f"{name}: {text}"
