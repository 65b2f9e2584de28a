"""GUIDs from seeded dice."""

from __future__ import annotations

import random
import re

_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


def draw_guid(dice: random.Random) -> str:
    """A random GUID (version 4) in lower case with hyphens."""
    text = f"{dice.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def read_guid(text: str) -> str | None:
    """The GUID in lower case, or None if the text is none."""
    lowered = text.strip().lower()
    return lowered if _GUID.fullmatch(lowered) else None
