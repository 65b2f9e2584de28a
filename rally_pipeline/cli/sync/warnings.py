"""What the engines warn of, such as a long wait, for the person who waits at the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rally_pipeline.cli.terminal import remarks


class _Lines(logging.Handler):
    """Prints each message as one line on stderr, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        remarks.print(record.getMessage(), markup=False, soft_wrap=True)


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Inside the block, warnings of this package show on stderr as they come."""
    logger, lines = logging.getLogger("rally_pipeline"), _Lines(logging.WARNING)
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
