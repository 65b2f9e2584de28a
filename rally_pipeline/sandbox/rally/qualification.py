"""BANT scores of deals: `GET` and `PUT /deals/{id}/bant`. The documentation shows no fields; these are a
guess.
"""

from __future__ import annotations

from .errors import RallyError
from .store import Store
from .writes import Writer

SCORES = ("budget", "authority", "need", "timeline")


class Qualification:
    """The scores of each deal, 0 to 100 or null, and their mean."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer
        self._scores: dict[str, dict[str, int | None]] = {}

    def read(self, deal_id: str) -> dict[str, object]:
        """The scores of a deal. Raises `RallyError` 404."""
        if deal_id not in self._store.collections["deals"].by_id:
            raise self._writer.missing("deals", deal_id)
        scores = self._scores.get(deal_id, dict.fromkeys(SCORES))
        given = [score for score in scores.values() if score is not None]
        return {"dealId": deal_id, **scores, "score": round(sum(given) / len(given)) if given else None}

    def write(self, deal_id: str, body: object, *, by: str | None) -> dict[str, object]:
        """Replace the scores of a deal. Raises `RallyError` 400, 404."""
        present = self.read(deal_id)
        if not isinstance(body, dict):
            raise RallyError(400, "The body is not a JSON object.")
        problems = {name: ["Must be between 0 and 100."] for name in SCORES if not _fits(body.get(name))}
        if problems:
            raise RallyError(400, "One or more fields are invalid.", problems)
        self._scores[deal_id] = {name: body.get(name) for name in SCORES}
        changed = self.read(deal_id)
        if changed != present:
            effect = self._store.switches.bant_effect
            self._writer.affect("deals", deal_id, {}, effect, by, self._store.moment())
        return changed


def _fits(score: object) -> bool:
    return score is None or (isinstance(score, int) and not isinstance(score, bool) and 0 <= score <= 100)
