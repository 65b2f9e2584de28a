"""One line of a check, and the way in which a check is kept from waiting for ever or stopping the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rally_pipeline.http.redaction import redact, spellings
from rally_pipeline.orchestration.diagnosis import diagnose


class Verdict(StrEnum):
    """How a check came out; a problem turns the whole examination red."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it stands, and what to do where that is not well."""

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""


def ok(subject: str, text: str) -> Finding:
    return Finding(subject, Verdict.OK, text)


def warning(subject: str, text: str, advice: str = "") -> Finding:
    return Finding(subject, Verdict.WARNING, text, advice)


def problem(subject: str, text: str, advice: str = "") -> Finding:
    return Finding(subject, Verdict.PROBLEM, text, advice)


def problem_of(subject: str, error: BaseException) -> Finding:
    """The line for an error; the diagnosis says what to do."""
    diagnosis = diagnose(error) if isinstance(error, Exception) else None
    text = diagnosis.line if diagnosis is not None else f"unexpected {type(error).__name__}: {error}"
    return problem(subject, " ".join(text.split()))


def bounded(
    subject: str, check: Callable[[], Iterable[Finding]], *, seconds: float, secrets: Sequence[str]
) -> list[Finding]:
    """What the check finds within the time, and a problem where it fails or takes longer. Shows no secret.

    A folder on a server that has gone can hold a process for ever, so the check has a thread that ends with the
    process.
    """
    found: list[Finding] = []

    def work() -> None:
        try:
            found.extend(check())
        except Exception as error:  # noqa: BLE001 (whatever it is, the other checks are to be made)
            found.append(problem_of(subject, error))

    thread = threading.Thread(target=work, name=f"doctor {subject}", daemon=True)
    thread.start()
    thread.join(seconds)
    shown = list(found)
    if thread.is_alive():
        shown.append(
            problem(subject, f"the check had not ended after {seconds:.0f} s", "see what hangs there")
        )
    masked = spellings(secrets)
    return [
        Finding(one.subject, one.verdict, redact(one.text, masked), redact(one.advice, masked))
        for one in shown
    ]
