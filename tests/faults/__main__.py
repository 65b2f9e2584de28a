"""Print the fault matrix: each row with its tests, or the reason why it cannot apply.

Usage: python -m tests.faults [--tests]   (--tests names each test). Exit code 1 if a row has neither.
"""

from __future__ import annotations

import sys

from tests.faults.marked import find_tests
from tests.faults.matrix import GROUPS, ROWS


def table(*, named: bool) -> str:
    """The matrix as text, with the totals in its last line."""
    tests = find_tests()
    lines: list[str] = []
    for group, rows in GROUPS.items():
        lines.append(group)
        for row in rows:
            mine = tests.get(row.number, [])
            count = f"{len(mine)} test{'s' if len(mine) != 1 else ''}" if mine else "-"
            said = row.inapplicable or row.note
            lines.append(f"  {row.number:4} {row.fault:74} {count:9} {said}".rstrip())
            lines += [f"         {test}" for test in mine] if named else []
    tested = sum(number in tests for number in ROWS)
    excused = [row.number for row in ROWS.values() if row.number not in tests and row.inapplicable]
    lines.append(
        f"{len(ROWS)} rows: {tested} tested, {len(excused)} not applicable ({', '.join(excused)}),"
        f" {len(ROWS) - tested - len(excused)} open"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    text = table(named="--tests" in sys.argv[1:])
    sys.stdout.write(f"{text}\n")
    sys.exit(0 if text.endswith(" 0 open") else 1)
