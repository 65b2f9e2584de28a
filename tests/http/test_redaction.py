"""Secrets and control characters never reach a log line or a message."""

from __future__ import annotations

import io
import logging
import time

import pytest

from rally_pipeline.http.redaction import RedactingFilter, escape, excerpt, redact

SECRET = 'test_s3cr3t/+value="'
TOKEN = "0f" * 32


@pytest.mark.security("11")
@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("key rk_live_abcDEF123_x-y is bad", "key *** is bad"),
        ("sk_live_1, sk_test_2", "***, ***"),
        ("whsec_dGVzdA-only+a/test=", "***"),
        ("Authorization: Bearer eyJhbGciOi.J9-_x/y+z==", "Authorization: Bearer ***"),
        ("bearer abcdefgh", "bearer ***"),
        ("X-Api-Key: abc123, next", "X-Api-Key: ***, next"),
        ('{"x-api-key": "abc123"}', '{"x-api-key": "***"}'),
        (f"token {TOKEN}.", "token ***."),
        ("postgresql+psycopg://rally:hunter2@db/x", "postgresql+psycopg://rally:***@db/x"),
        ("the bearer of news", "the bearer of news"),
        ("sha256 " + "0f" * 20, "sha256 " + "0f" * 20),
        ("id 7f3c0c1e-0000-4000-8000-000000000000", "id 7f3c0c1e-0000-4000-8000-000000000000"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        f"a{SECRET}b",
        "a test_s3cr3t%2F%2Bvalue%3D%22 b",
        "a test_s3cr3t/%2Bvalue%3D%22 b",
        'a test_s3cr3t/+value=\\" b',
    ],
)
def test_a_configured_secret_is_masked_in_every_spelling(text: str) -> None:
    assert "s3cr3t" not in redact(text, [SECRET])
    assert "***" in redact(text, [SECRET])


def test_of_overlapping_secrets_the_longest_goes_first() -> None:
    assert redact("abcdefgh", ["abcd", "abcdefgh"]) == "***"


def test_very_short_values_are_no_secrets() -> None:
    assert redact("a database", ["", "a", "dat"]) == "a database"


@pytest.mark.security("28")
def test_control_characters_are_escaped() -> None:
    assert (
        escape("a\nb\x1b[0m\x00\u2028\u202e\x85\ufeff") == "a\\x0ab\\x1b[0m\\x00\\u2028\\u202e\\u0085\\ufeff"
    )


@pytest.mark.parametrize("before", [0, 1, 150, 195, 199, 200, 3900, 4080, 4095, 4096])
def test_no_part_of_a_secret_survives_at_a_cut(before: int) -> None:
    for filler in (b"x", b" "):
        text = excerpt(filler * before + TOKEN.encode() + b" tail" * 2000, [TOKEN])
        assert "0f0f" not in text
        assert len(text) <= 200


@pytest.mark.security("48")
@pytest.mark.parametrize(
    "hostile",
    [
        "Bearer " * 150_000,
        "x-api-key" + " " * 1_000_000,
        "://" + "a" * 1_000_000,
        "://a:" * 200_000,
        "0f" * 500_000,
        "rk_live_" * 125_000,
        "bearer" + "\t" * 1_000_000,
        "\x00" * 300_000,
    ],
)
def test_hostile_text_takes_no_hostile_time(hostile: str) -> None:
    start = time.process_time()
    redact(hostile, [SECRET])
    escape(hostile)
    assert time.process_time() - start < 1.0


@pytest.fixture
def logger() -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter([SECRET]))
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s %(extra)s", defaults={"extra": ""}))
    logger = logging.getLogger("tests.http.redaction.child")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.DEBUG)
    return logger, stream


@pytest.mark.security("11")
def test_log_messages_arguments_and_extras_are_masked(logger: tuple[logging.Logger, io.StringIO]) -> None:
    log, stream = logger
    log.info("key %s of %d", SECRET, 7, extra={"extra": f"also {SECRET}"})
    log.info("plain %s", "text")
    assert stream.getvalue() == "INFO key *** of 7 also ***\nINFO plain text \n"


@pytest.mark.security("11", "12")
def test_tracebacks_are_masked(logger: tuple[logging.Logger, io.StringIO]) -> None:
    log, stream = logger
    try:
        raise ValueError(f"cannot use {SECRET}")
    except ValueError:
        log.exception("failed", stack_info=True)
    assert "s3cr3t/" not in stream.getvalue()
    assert "ValueError: cannot use ***" in stream.getvalue()
    assert "Traceback" in stream.getvalue()


def test_the_filter_shows_no_secret() -> None:
    assert "s3cr3t" not in repr(RedactingFilter([SECRET]))
