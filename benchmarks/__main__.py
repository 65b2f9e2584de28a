"""All benchmarks, one after the other: each one's table, then one table of all ratios; the figures also as JSON.

    python -m benchmarks [--short] [--only first_load,change_feed,…] [--json benchmarks.json]

The default takes about 35 minutes on a quiet machine with two cores; `--short`, with fewer rounds and less data, about
4 and shows the same ratios less exactly. Each benchmark is also one command, with options of its own:
`python -m benchmarks.first_load --help`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from benchmarks.measuring.options import chosen, tell
from benchmarks.measuring.report import Report, show_goals, write_json

# A peer that needs minutes is ended at its limit, and has one round if it needs more seconds than `--patience`.
DEFAULT = (
    ("first_load", "--page-size 1000 --limit 90 --patience 10"),
    ("first_load", "--page-size 100 --only floor,look-first,ours"),
    ("change_feed", "--rounds 1"),
    ("rate_limit", "--window 6 --windows 2"),
    ("sell_drain", "--rounds 1 --limit 300"),
    ("idle", ""),
    ("code_location", ""),
    ("growth", ""),
)
SHORT = (
    ("first_load", "--rows 30000 --page-size 1000 --rounds 1 --limit 20"),
    ("change_feed", "--rows 30000 --rounds 1 --database sqlite"),
    ("rate_limit", "--window 5 --windows 1 --processes 1,3 --only ours"),
    ("sell_drain", "--items 10000 --rounds 1 --limit 20"),
    ("idle", "--rounds 1"),
    ("code_location", "--rounds 2"),
    ("growth", "--sizes 10000,50000,100000 --logs 10000,100000 --database sqlite"),
)


def main() -> int:
    """Run what is wanted; a benchmark that fails does not stop the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="about 4 minutes")
    parser.add_argument("--only", default=",".join(dict(DEFAULT)), help="which ones, comma-separated")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), metavar="FILE")
    options = parser.parse_args()
    wanted = chosen(options.only, dict(DEFAULT))
    reports: list[Report] = []
    failed: list[str] = []
    for name, arguments in SHORT if options.short else DEFAULT:
        if name not in wanted:
            continue
        tell(f"== {name} {arguments}")
        try:
            reports.append(_run(name, arguments))
        except Exception:  # noqa: BLE001 (told below and by the exit code)
            failed.append(name)
            traceback.print_exc()
        else:
            print(f"{reports[-1].show()}\n", flush=True)
    write_json(reports, options.json)
    print(f"# All ratios\n\n{show_goals(goal for report in reports for goal in report.goals)}")
    print(f"\n{options.json} holds all figures.")
    for name in failed:
        print(f"{name} FAILED")
    return 1 if failed else 0


def _run(name: str, arguments: str) -> Report:
    package = importlib.import_module(f"benchmarks.{name}.measurement")
    report: Report = package.measure(package.parser(None).parse_args(arguments.split()))
    return report


if __name__ == "__main__":
    sys.exit(main())
