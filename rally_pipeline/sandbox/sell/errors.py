"""Errors of the Sell API in their documented envelope."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from rally_pipeline.sandbox.wire import Answer

CODES: Mapping[int, str] = {
    400: "invalid_param",
    401: "unauthorized",
    403: "insufficient_scope",
    404: "not_found",
    406: "invalid_header",
    409: "temporarily_unavailable",
    410: "gone",
    422: "incorrect_payload",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "temporarily_unavailable",
}


class RefusalError(Exception):
    """A request is refused; carries what the envelope says."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, details: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code or CODES.get(status, "server_error")
        self.details = details

    def answer(self, reference: str) -> Answer:
        """The answer; `reference` is `logref` and `X-Request-Id`."""
        error = {"code": self.code, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        more = {"links": {"more_info": f"https://example.invalid/docs/{self.code}"}}
        phrase = HTTPStatus(self.status).phrase if self.status in HTTPStatus.__members__.values() else "Error"
        return Answer.json(
            {
                "errors": [{"error": error, "meta": {"type": "error", **more}}],
                "meta": {
                    "type": "errors",
                    "http_status": f"{self.status} {phrase}",
                    "logref": reference,
                    "links": {"more_info": "https://example.invalid/docs/errors"},
                },
            },
            self.status,
        )
