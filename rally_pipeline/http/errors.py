"""What can go wrong in a call, as types: status, method, path and a short clean excerpt, never a secret."""

from __future__ import annotations


class ApiError(Exception):
    """A call to a remote system did not give a usable answer.

    Attributes:
        system: name of the system, such as `rally`.
        method, path: the call, without query and host.
        status: HTTP status of the answer, or None when there was none.
        excerpt: at most 200 characters of the answer, redacted, on one line.
        detail: what was wrong, in words.
    """

    def __init__(
        self,
        system: str,
        method: str,
        path: str,
        *,
        status: int | None = None,
        detail: str = "",
        excerpt: str = "",
    ) -> None:
        super().__init__(system, method, path)
        self.system = system
        self.method = method
        self.path = path
        self.status = status
        self.detail = detail
        self.excerpt = excerpt

    def __str__(self) -> str:
        parts = [f"{self.system} {self.method} {self.path}"]
        if self.status is not None and not self.detail.startswith(str(self.status)):
            parts.append(str(self.status))
        parts += [part for part in (self.detail, self.excerpt) if part]
        return ": ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (type(self), self.args, self.__dict__))


def _restore(kind: type[ApiError], args: tuple[str, str, str], state: dict[str, object]) -> ApiError:
    error = kind(*args)
    error.__dict__.update(state)
    return error


class NoAnswer(ApiError):
    """No answer came: connection failed, broke off, or the deadline passed.

    Attributes:
        sent: whether the request may have reached the server and may have been applied.
        lasting: whether repeating cannot help until somebody changes something, such as a certificate or a proxy.
        advice: what to do about it, where the failure itself tells.
    """

    sent: bool = True
    lasting: bool = False
    advice: str = ""


class Unauthorized(ApiError):
    """401: the credentials are missing, unknown, revoked or expired. Final for the run."""


class Forbidden(ApiError):
    """403: the credentials are valid but lack a right. Final for what was asked."""


class NotFound(ApiError):
    """404 or 410: there is nothing at this path (which may be one record or the whole endpoint)."""

    @property
    def gone(self) -> bool:
        """True for 410: the server says that it will not come back."""
        return self.status == 410


class Conflict(ApiError):
    """409: duplicate, or in conflict with the present state."""


class TooLarge(ApiError):
    """413 or 414: what was sent is too large; send less at once."""


class Rejected(ApiError):
    """Any other 4xx: the server refused this request as it stands."""


class Throttled(ApiError):
    """429, or too few requests left, and the time to wait for more is used up or none may be waited. Not applied.

    Attributes:
        wait_seconds: how long the server asked to wait (1 to 90), None if it did not say.
        given_up: whether the limit was waited for as long as any limit is.
    """

    wait_seconds: float | None = None
    given_up: bool = False


class ServerFailed(ApiError):
    """5xx, after the retries that were allowed. A request that writes may have been applied."""


class Redirected(ApiError):
    """3xx: redirects are never followed. Names only the target's host."""


class BadAnswer(ApiError):
    """A 2xx answer that does not fit: HTML, empty, an error object, wrong envelope, too large, partial."""


class NotTheApi(BadAnswer):
    """What answers is not the system that was meant: a web page before any other answer, or the sandbox's mark."""


class OversizedAnswer(BadAnswer):
    """A 2xx answer larger than the cap of one answer; ask for less at once."""


class ReadOnly(ApiError):
    """Not sent: RALLY_PIPELINE_READ_ONLY is on, and this would change something at the remote system."""

    def __str__(self) -> str:
        call = f" ({self.method} {self.path} was not sent)" if self.method else ""
        return f"{self.system}: {self.detail}{call}"


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: TooLarge,
    414: TooLarge,
    429: Throttled,
}


def error_type(status: int) -> type[ApiError]:
    """The error that stands for a status outside 2xx."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return ServerFailed
    return Rejected if status >= 400 else Redirected
