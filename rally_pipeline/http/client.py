"""The one way to call a remote system: paced, bounded, repeated where that is safe, with typed errors."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import BinaryIO, Self, TypedDict, TypeVar, Unpack

import msgspec
from urllib3.filepost import encode_multipart_formdata

from rally_pipeline.clock import Clock, Step, SystemClock, no_step
from rally_pipeline.http.answers import answer_error, is_page, not_the_api
from rally_pipeline.http.budget import Budget
from rally_pipeline.http.errors import ApiError, BadAnswer, NoAnswer, ReadOnly, Throttled
from rally_pipeline.http.redaction import redact, spellings
from rally_pipeline.http.retry import TOO_MANY_REQUESTS, Attempts, RetryBucket, RetryPolicy
from rally_pipeline.http.session import SessionTransport
from rally_pipeline.http.shortage import LONGEST_SHORTAGE
from rally_pipeline.http.transport import (
    Caller,
    LimitReached,
    Limits,
    Request,
    Response,
    Transport,
    TransportFailure,
)
from rally_pipeline.http.urls import build_url, check_base_url, is_loopback, quote_segment
from rally_pipeline.http.waits import LONGEST_SILENT, announce

__all__ = ["CallOptions", "File", "HttpClient", "Usage", "quote_segment"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT_POLICY = RetryPolicy()
DEFAULT_LIMITS = Limits()
SANDBOX_MARKER = "X-Sandbox"
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
_COMPLETE = frozenset({200, 201, 202, 204})
_HEADER_VALUE = re.compile(r"[\x21-\x7e\xa0-\xff](?:[\t\x20-\x7e\xa0-\xff]*[\x21-\x7e\xa0-\xff])?")

File = tuple[str, str, bytes, str]
"""A part of a multipart body: field name, file name, content, content type."""


class CallOptions(TypedDict, total=False):
    """What a call may carry besides method and path; see `HttpClient.request`."""

    params: Mapping[str, str | int] | None
    json: object
    content: bytes | None
    files: File | None
    headers: Mapping[str, str] | None
    repeat: bool | None
    limits: Limits | None
    sink: BinaryIO | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a client has spent so far; subtract two of them for the cost of what lay between.

    Attributes:
        requests: sent, every attempt counted.
        retries: attempts after the first one of a call, those after a 429 included.
        throttled: answers 429.
        waited_seconds: for the rate budget, after a 429 and between attempts.
        bytes_received: of bodies, decoded.
    """

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    waited_seconds: float = 0.0
    bytes_received: int = 0

    def __sub__(self, before: Usage) -> Usage:
        return Usage(
            self.requests - before.requests,
            self.retries - before.retries,
            self.throttled - before.throttled,
            self.waited_seconds - before.waited_seconds,
            self.bytes_received - before.bytes_received,
        )


class HttpClient:
    """Calls one remote system. Safe to use from several threads.

    Args:
        system: its name in errors and logs, such as `rally`.
        base_url: https, or http on the loopback interface; every call goes below it.
        headers: sent with every call; this is where the credentials go.
        secrets: values that no error, excerpt or log line may show.
        transport: carries requests out; by default a `SessionTransport` of its own.
        budget: paces requests; None sends at once.
        policy, limits: bounds of the retries, and of one attempt.
        clock, random, step: time, chance, and the hook before and after every request, which is called with
            `<system>:<METHOD> <path>:before` and `…:after`.
        bucket: to be shared by several clients of one host.
        read_only: refuse every call that changes something at the remote system: all but GET, and whatever goes
            below one of the paths `consuming`, where even a GET takes something away.
        sandbox: whether the answers must come from the sandbox, which marks each one; None takes its answers from
            the loopback interface only, since it listens nowhere else.

    Raises:
        ValueError: `base_url` or a header cannot be used.
    """

    def __init__(
        self,
        *,
        system: str,
        base_url: str,
        headers: Mapping[str, str],
        secrets: Sequence[str] = (),
        transport: Transport | None = None,
        budget: Budget | None = None,
        policy: RetryPolicy = DEFAULT_POLICY,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        random: Random | None = None,
        step: Step = no_step,
        bucket: RetryBucket | None = None,
        sandbox: bool | None = None,
        read_only: bool = False,
        consuming: tuple[str, ...] = (),
    ) -> None:
        self.system = system
        self._read_only = read_only
        self._consuming = consuming
        self._base_url = check_base_url(base_url)
        self._headers = _checked({"Accept": "application/json", "User-Agent": "rally-pipeline", **headers})
        self._secrets = spellings(secrets)
        self._own_transport = SessionTransport(self._base_url) if transport is None else None
        self._transport: Transport = transport or self._own_transport or SessionTransport(self._base_url)
        self._budget = budget
        self._policy = policy
        self._limits = limits
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._random = random if random is not None else Random()  # noqa: S311  (jitter, no secret)
        self._step = step
        self._bucket = bucket if bucket is not None else RetryBucket()
        self._sandbox = sandbox
        self._may_be_marked = is_loopback(self._base_url) if sandbox is None else sandbox
        self._usage = Usage()
        self._server_time: datetime | None = None
        self._answered = False
        self._waits_long = policy.total_seconds >= LONGEST_SHORTAGE
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"HttpClient(system={self.system!r}, base_url={self._base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless the transport was passed in."""
        if self._own_transport is not None:
            self._own_transport.close()

    @property
    def usage(self) -> Usage:
        """What has been spent so far."""
        return self._usage

    @property
    def server_time(self) -> datetime | None:
        """The `Date` of the answer received last (UTC, whole seconds); None before the first."""
        return self._server_time

    def check_writable(self, what: str) -> None:
        """Stop before anything is prepared that could not be sent; `what` says in words what does not happen then.

        Raises:
            ReadOnly: RALLY_PIPELINE_READ_ONLY is on.
        """
        if self._read_only:
            raise ReadOnly(
                self.system, "", "", detail=f"RALLY_PIPELINE_READ_ONLY=true forbids writing: {what}"
            )

    def read(
        self,
        path: str,
        decode: Callable[[Response], T],
        *,
        method: str = "GET",
        **options: Unpack[CallOptions],
    ) -> tuple[Response, T]:
        """Send a request; its answer, and what `decode` makes of it.

        A GET whose answer `decode` refuses with `BadAnswer` is repeated like one to a server that fails.

        Raises:
            ApiError, ValueError: see `request`; a `BadAnswer` of `decode` where it goes on.
        """
        return self._exchange(method, path, decode, options)

    def get(self, path: str, **options: Unpack[CallOptions]) -> Response:
        """See `request`; repeated."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Unpack[CallOptions]) -> Response:
        """See `request`; not repeated unless `repeat=True`."""
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Unpack[CallOptions]) -> Response:
        """See `request`; repeated."""
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Unpack[CallOptions]) -> Response:
        """See `request`; not repeated unless `repeat=True`."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Unpack[CallOptions]) -> Response:
        """See `request`; repeated."""
        return self.request("DELETE", path, **options)

    def request(self, method: str, path: str, **options: Unpack[CallOptions]) -> Response:
        """Send a request and return its 200, 201, 202 or 204.

        Args:
            method, path: the path begins with `/` and is taken below the base URL; ids in it are quoted by the
                caller with `quote_segment`.
            params: query.
            json, content, files: the body: an object to encode (decimals become strings), bytes (with their
                `Content-Type` among `headers`), or one file as multipart/form-data.
            headers: in addition to the client's.
            repeat: whether the request may be sent again after a 429, a failure of the server or no answer;
                None means GET, PUT and DELETE only.
            limits: in place of the client's, for this call.
            sink: a seekable file that takes the body of a 200 instead of `Response.body`; emptied before each
                attempt, so that it never holds parts of two answers.

        Raises:
            ReadOnly: the client may only read, and this call writes.
            ApiError: one of its subclasses says what came instead.
            ValueError: the path, the headers or the body cannot be sent.
        """
        return self._exchange(method, path, _as_it_is, options)[0]

    def _build(self, method: str, path: str, options: CallOptions) -> Request:
        url = build_url(self._base_url, path, options.get("params"))
        extra = options.get("headers")
        headers = {**self._headers, **_checked(extra)} if extra else dict(self._headers)
        json, content, file = options.get("json"), options.get("content"), options.get("files")
        if sum(part is not None for part in (json, content, file)) > 1:
            raise ValueError("a request has one body: json, content or files")
        if json is not None:
            content = msgspec.json.encode(json)
            headers["Content-Type"] = "application/json"
        if file is not None:
            name, file_name, data, kind = file
            with self._lock:
                boundary = f"{self._random.getrandbits(128):032x}"
            content, headers["Content-Type"] = encode_multipart_formdata(
                {name: (file_name, data, kind)}, boundary=boundary
            )
        sink = options.get("sink")
        if sink is not None:
            headers["Accept-Encoding"] = "identity"
        return Request(method, url, headers, content, sink)

    def _exchange(
        self, method: str, path: str, decode: Callable[[Response], T], options: CallOptions
    ) -> tuple[Response, T]:
        """Attempts until one is final, or they or their time are used up."""
        if self._read_only and (method != "GET" or path.startswith(self._consuming)):
            detail = "RALLY_PIPELINE_READ_ONLY=true forbids writing"
            raise ReadOnly(self.system, method, path, detail=detail)
        caller = Caller(self.system, method, path, self._secrets)
        request, limits = self._build(method, path, options), options.get("limits") or self._limits
        clock, repeat = self._clock, options.get("repeat")
        if closed := self._bucket.enter(clock.monotonic()):
            detail = f"not sent: the server keeps failing, next attempt in {closed:.0f} s"
            raise _no_answer(caller, detail, sent=False)
        may_repeat = method in _REPEATABLE if repeat is None else repeat
        now = clock.monotonic()
        attempts = Attempts(self._policy, method, self._bucket, self._random, may_repeat=may_repeat, now=now)
        while True:
            self._acquire(caller, attempts.give_up_at)
            outcome = self._attempt(caller, request, limits)
            used: tuple[Response, T] | None = None
            refusal: BadAnswer | None = None
            if isinstance(outcome, Response) and 200 <= outcome.status < 300:
                try:
                    used = outcome, self._accept(outcome, decode)
                except BadAnswer as error:
                    refusal = error
            wait = attempts.wait_after(outcome, clock.monotonic(), refusal)
            if used is not None:
                self._check_marker(used[0])
                return used
            final = refusal or _error(
                caller, outcome, sent=attempts.sent, given_up=may_repeat and self._waits_long
            )
            if wait is None:
                raise final from None
            if wait > LONGEST_SILENT:
                announce(logger, clock, self.system, wait, str(final))
            else:
                logger.info("%s; again in %.1f s", final, wait)
            self._count(retries=1, waited_seconds=wait)
            clock.sleep(wait)

    def _acquire(self, caller: Caller, give_up_at: float) -> None:
        """Wait until the budget lets a request go."""
        if self._budget is None:
            return
        try:
            self._count(waited_seconds=self._budget.acquire(give_up_at))
        except LimitReached as reached:
            error = Throttled(caller.system, caller.method, caller.path, detail=f"not sent: {reached}")
            error.given_up = self._waits_long
            raise error from None

    def _accept(self, response: Response, decode: Callable[[Response], T]) -> T:
        """What `decode` makes of a 2xx.

        Raises:
            BadAnswer: it is no whole answer, or `decode` refuses it.
        """
        if response.status not in _COMPLETE or response.problem:
            raise answer_error(response)
        try:
            content = decode(response)
        except BadAnswer as error:
            # In the middle of a run it is a passing trouble of the server; before any other answer, the wrong address.
            if is_page(response) and not self._answered:
                raise not_the_api(response, error.detail) from None
            raise
        self._answered = self._answered or not is_page(response)
        return content

    def _check_marker(self, response: Response) -> None:
        """Refuse made-up records in a production warehouse, and real ones where the sandbox was meant."""
        marked = SANDBOX_MARKER in response.headers
        if marked and not self._may_be_marked:
            raise not_the_api(
                response,
                "the answer comes from a sandbox: point the URL at the real system, or set"
                " RALLY_PIPELINE_SANDBOX=true",
            )
        if self._sandbox and not marked:
            raise not_the_api(
                response, "the answer does not come from the sandbox, although RALLY_PIPELINE_SANDBOX=true"
            )

    def _attempt(self, caller: Caller, request: Request, limits: Limits) -> Response | TransportFailure:
        """Send once; the budget hears of it whatever happens."""
        name = f"{caller.system}:{caller.method} {caller.path}"
        response: Response | None = None
        sent_at = self._clock.monotonic()
        try:
            self._step(f"{name}:before")
            outcome = self._send(request, limits)
            if isinstance(outcome, Response):
                response = outcome
                response.caller = caller
                response.received_at = self._clock.monotonic()
                self._server_time = response.server_time or self._server_time
        finally:
            if self._budget is not None:
                self._budget.observe(response, sent_at, self._clock.monotonic())
        self._step(f"{name}:after")
        return outcome

    def _send(self, request: Request, limits: Limits) -> Response | TransportFailure:
        if request.sink is not None:
            request.sink.seek(0)
            request.sink.truncate()
        try:
            response = self._transport.send(request, limits)
        except TransportFailure as failure:
            self._count(requests=1)
            return failure
        size = len(response.body) + (request.sink.tell() if request.sink is not None else 0)
        self._count(requests=1, throttled=int(response.status == TOO_MANY_REQUESTS), bytes_received=size)
        return response

    def _count(
        self,
        *,
        requests: int = 0,
        retries: int = 0,
        throttled: int = 0,
        waited_seconds: float = 0.0,
        bytes_received: int = 0,
    ) -> None:
        with self._lock:
            so_far = self._usage
            self._usage = Usage(
                so_far.requests + requests,
                so_far.retries + retries,
                so_far.throttled + throttled,
                so_far.waited_seconds + waited_seconds,
                so_far.bytes_received + bytes_received,
            )


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that can be sent; the message about one that cannot never shows its value."""
    for name, value in headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(
                f"header {name}: empty, or holds a line break or another character that cannot be sent"
            )
    return dict(headers)


def _as_it_is(_response: Response) -> None:
    """For answers whose content the caller looks at."""


def _error(
    caller: Caller, outcome: Response | TransportFailure, *, sent: bool, given_up: bool = False
) -> ApiError:
    if isinstance(outcome, TransportFailure):
        failure = _no_answer(caller, outcome.reason, sent=sent)
        failure.lasting, failure.advice = outcome.lasting, redact(outcome.advice, caller.secrets)
        return failure
    error = answer_error(outcome)
    if isinstance(error, Throttled):
        error.given_up = given_up
    return error


def _no_answer(caller: Caller, detail: str, *, sent: bool) -> NoAnswer:
    error = NoAnswer(caller.system, caller.method, caller.path, detail=redact(detail, caller.secrets))
    error.sent = sent
    return error
