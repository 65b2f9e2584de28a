"""Names in Dagster for things whose display names may be anything and may change.

A slug is given once, when a sync is first seen, and kept by id from then on: renaming a sync renames nothing in
Dagster, so its schedule keeps its switch and its asset its history.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

LONGEST_SLUG = 60
RESERVED = frozenset({"catalog", "runs_sensor", "catalog_sensor", "refresh"})
"""`signalsmith/catalog` is an asset, `signalsmith_runs_sensor` a sensor: a sync of that name gets its id added."""

_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,63}")


def slugify(name: str) -> str:
    """Lower-case ASCII letters, digits and single underscores; "" where nothing of the name is left."""
    plain = unicodedata.normalize("NFKD", name[:1000]).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")[:LONGEST_SLUG].rstrip("_")


def assign_slugs(named: Iterable[tuple[str, str]], known: Mapping[str, str]) -> dict[str, str]:
    """A slug for every (id, name), in the order given; `known` slugs (by id) stay.

    The first sync of a name gets the plain slug, later twins get a piece of their id added. The order should be
    that of creation, so that the same names come out again if the known ones are lost.
    """
    slugs = {sync_id: slug for sync_id, slug in known.items() if is_slug(slug)}
    taken = set(slugs.values())
    found = {}
    for sync_id, name in named:
        if sync_id not in slugs:
            slugs[sync_id] = _choose(sync_id, name, taken)
            taken.add(slugs[sync_id])
        found[sync_id] = slugs[sync_id]
    return found


def is_slug(text: str) -> bool:
    """Whether the text may be part of every Dagster name."""
    return 0 < len(text) <= LONGEST_SLUG + 20 and re.fullmatch(r"[a-z0-9_]+", text) is not None


def tag_value(text: str) -> str:
    """The text as the value of a definition's tag, or a digest of it where it does not fit."""
    return text if _TAG_VALUE.fullmatch(text) else f"id-{_digest(text)}"


def _choose(sync_id: str, name: str, taken: Collection[str]) -> str:
    slug = slugify(name)
    piece = re.sub(r"[^a-z0-9]", "", sync_id.lower())[:8] or _digest(sync_id)[:8]
    candidates = [slug] if slug and slug not in RESERVED and not slug.endswith("_schedule") else []
    stem = slug or "sync"
    candidates += [f"{stem}_{piece}", f"{stem}_{_digest(sync_id)}"]
    return next(candidate for candidate in candidates if candidate not in taken)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
