"""Waits that a person would otherwise take for a hang: each says how long, until when, and why."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from rally_pipeline.clock import Clock

LONGEST_SILENT = 10.0
"""Seconds that may pass without a word."""


def announce(logger: logging.Logger, clock: Clock, system: str, seconds: float, reason: str) -> None:
    """Log a wait that begins now, unless it is a short one. A warning, so that it shows wherever nobody set up logs."""
    if seconds > LONGEST_SILENT:
        end = clock.now() + timedelta(seconds=seconds)
        logger.warning("%s: waiting %.0f s, until %s UTC: %s", system, seconds, f"{end:%H:%M:%S}", reason)


def moment(seconds: float) -> str:
    """A Unix time as a person reads it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
