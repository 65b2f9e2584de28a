"""A check neither waits for ever nor stops the others, and shows no secret."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from rally_pipeline.doctor.finding import Finding, Verdict, bounded, ok
from rally_pipeline.warehouse import WarehouseError


def test_a_check_that_hangs_is_given_up_and_keeps_what_it_found() -> None:
    release = threading.Event()

    def check() -> Iterator[Finding]:
        yield ok("home", "found")
        release.wait()

    found = bounded("home", check, seconds=0.2, secrets=())
    release.set()
    assert [(one.verdict, one.text) for one in found] == [
        (Verdict.OK, "found"),
        (Verdict.PROBLEM, "the check had not ended after 0 s"),
    ]


def test_an_error_on_purpose_is_its_line_and_a_defect_is_named() -> None:
    def refuse() -> Iterator[Finding]:
        yield ok("warehouse", "found")
        raise WarehouseError("the disk is gone: mount it")

    def fail() -> Iterator[Finding]:
        raise ZeroDivisionError("by zero")

    found = bounded("warehouse", refuse, seconds=60, secrets=())
    assert [one.text for one in found] == ["found", "the disk is gone: mount it"]
    (defect,) = bounded("warehouse", fail, seconds=60, secrets=())
    assert (defect.verdict, defect.text) == (Verdict.PROBLEM, "unexpected ZeroDivisionError: by zero")


def test_secrets_are_masked_in_texts_and_advice() -> None:
    def check() -> Iterator[Finding]:
        yield Finding("rally", Verdict.PROBLEM, "key s3cr3t/word", "replace s3cr3t%2Fword")

    (found,) = bounded("rally", check, seconds=60, secrets=["s3cr3t/word"])
    assert "s3cr3t" not in found.text + found.advice
