"""Print the security list: each row with its tests, or the reason why it has none.

Usage: python -m tests.security [--tests]   (--tests names each test). Exit code 1 if a row has neither.
"""

from __future__ import annotations

import sys

from tests.faults.marked import find_tests
from tests.security.matrix import ROWS


def table(*, named: bool) -> str:
    """The list as text, with the totals in its last line."""
    tests = find_tests(marker="security")
    lines: list[str] = []
    for row in ROWS.values():
        mine = tests.get(row.number, [])
        count = f"{len(mine)} test{'s' if len(mine) != 1 else ''}" if mine else "-"
        lines.append(f"  {row.number:3} {row.threat:48} {count:9} {row.defence or row.untested}")
        lines += [f"      not shown: {row.limits}"] if row.limits else []
        lines += [f"      {test}" for test in mine] if named else []
    tested = sum(number in tests for number in ROWS)
    excused = [row.number for row in ROWS.values() if row.number not in tests and row.untested]
    lines.append(
        f"{len(ROWS)} rows: {tested} tested, {len(excused)} without a test ({', '.join(excused)}),"
        f" {len(ROWS) - tested - len(excused)} open"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    text = table(named="--tests" in sys.argv[1:])
    sys.stdout.write(f"{text}\n")
    sys.exit(0 if text.endswith(" 0 open") else 1)
