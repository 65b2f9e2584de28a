"""Errors of the Rally API and the shapes in which they may be written (the documentation shows none)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from rally_pipeline.sandbox.wire import Answer

from .switches import RallySwitches


class RallyError(Exception):
    """A request that is refused: `status`, a `title`, and messages by field where fields are at fault."""

    def __init__(self, status: int, title: str, fields: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.fields = dict(fields or {})

    def messages(self) -> list[str]:
        """All messages as plain lines."""
        lines = [f"{name}: {text}" for name, texts in self.fields.items() for text in texts]
        return lines or [self.title]


def error_answer(error: RallyError, switches: RallySwitches) -> Answer:
    """The answer to a refused request in the shape that the switch `error_shape` names."""
    shape, status = switches.error_shape, error.status
    if shape == "problem":
        problem: dict[str, object] = {
            "type": f"https://httpstatuses.io/{status}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": error.title,
        }
        if error.fields:
            problem["errors"] = error.fields
        answer = Answer.json(problem, status)
        answer.headers["Content-Type"] = "application/problem+json; charset=utf-8"
        return answer
    if shape == "message":
        return Answer.json({"message": error.title, "errors": error.messages()}, status)
    if shape == "error":
        return Answer.json({"error": error.title}, status)
    if shape == "errors":
        return Answer.json({"errors": error.messages()}, status)
    if shape == "text":
        return Answer.text("\n".join(error.messages()), status)
    if shape == "html":
        page = f"<!DOCTYPE html><html><body><h1>{HTTPStatus(status).phrase}</h1></body></html>"
        return Answer.text(page, status, "text/html; charset=utf-8")
    return Answer.empty(status)
