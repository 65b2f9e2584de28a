"""The options that all benchmarks share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.measuring.report import Report, write_json


def parser_of(doc: str | None, *, rounds: int = 3) -> argparse.ArgumentParser:
    """A parser with `--rounds` and `--json`; the module's text is the help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"measurements of each (default {rounds})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def chosen(text: str, known: Iterable[str]) -> list[str]:
    """A comma-separated list of known names; ends the command at any other."""
    found, listed = names(text), list(known)
    unknown = [name for name in found if name not in listed]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(listed)}")
    return found


def tell(text: str) -> None:
    """Progress, for who is watching."""
    print(text, file=sys.stderr, flush=True)


def run_alone(parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Report]) -> None:
    """A benchmark as a command of its own."""
    options = parser.parse_args()
    report = measure(options)
    print(report.show())
    if options.json:
        write_json([report], options.json)
