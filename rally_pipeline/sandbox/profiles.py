"""Named sets of faults for `--faults NAME` and for soak tests; every rule plays for ever with a
probability.
"""

from __future__ import annotations

from typing import Any

Rules = tuple[dict[str, Any], ...]


def _often(share: float, *faults: str | dict[str, Any]) -> Rules:
    """Each of the faults with an equal part of `share` of the requests."""
    rules = [{"fault": fault} if isinstance(fault, str) else fault for fault in faults]
    return tuple({"times": None, "probability": share / len(rules), **rule} for rule in rules)


FLAKY = _often(
    0.02,
    "reset_before_headers",
    "close_before_headers",
    "lost_answer",
    "reset_in_body",
    "cut_chunked",
    "cut_close_delimited",
    "close_after",
    "status_500",
    "status_502",
    "html_503",
    "status_504",
    "applied_500",
)

THROTTLED = _often(
    0.03,
    {"fault": "throttle", "form": "seconds", "seconds": 1},
    {"fault": "throttle", "form": "date", "seconds": 2},
    {"fault": "throttle", "form": "reset", "seconds": 2},
    {"fault": "throttle", "form": "reset_ms", "seconds": 2},
    {"fault": "throttle", "form": "nothing"},
)

SLOW = _often(
    0.02,
    {"fault": "stall", "seconds": 0.5},
    {"fault": "stall_body", "seconds": 0.5},
    {"fault": "drip_headers", "seconds": 0.002},
    "chunked",
    "close_delimited",
    "interim",
)

HOSTILE_CONTENT = _often(
    0.02,
    "html_200",
    "empty_200",
    "error_200",
    "odd_success",
    "wrong_shape",
    "null_200",
    "byte_order_mark",
    "utf_16",
    "latin_1",
    "cut_json",
    "duplicate_keys",
    "nan",
    "huge_number",
    "long_integer",
    "deep_json",
    "wrong_gzip",
    "cut_gzip",
    "gzip_body",
    {"fault": "gzip_bomb", "size": 50_000_000},
    {"fault": "huge_body", "size": 50_000_000},
)

STORM: Rules = (
    {"fault": "status_503", "times": None, "for_seconds": 600.0, "probability": 0.5},
    {"fault": "reset_before_headers", "times": None, "for_seconds": 600.0},
)

PROFILES: dict[str, Rules] = {
    "none": (),
    "flaky": FLAKY,
    "throttled": THROTTLED,
    "slow": SLOW,
    "hostile-content": HOSTILE_CONTENT,
    "storm": STORM,
    "everything": (*FLAKY, *THROTTLED, *SLOW, *HOSTILE_CONTENT),
}
"""`storm` fails every request for ten minutes of sandbox time; the others strike a few percent of the
requests.
"""
