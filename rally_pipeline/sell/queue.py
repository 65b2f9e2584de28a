"""One page of the queue: from the answer's bytes to items, each readable on its own.

A page that is handed out is gone for its session, so nothing of it may be dropped: an item that does not fit
the documented envelope becomes an `UnreadableItem` with its bytes; only a body that is no page is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from rally_pipeline.http.answers import bad_answer
from rally_pipeline.http.envelope import read_rows
from rally_pipeline.http.transport import Response
from rally_pipeline.warehouse.values import clean_text

DELETED = "deleted"
_STATES = frozenset({"created", "updated", DELETED})
_UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ACK_KEY = re.compile(rb'"ack_key"\s*:\s*("(?:[^"\\]|\\.)*+")')
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class QueueItem:
    """One item as received. `revision` is None where it is missing or no number."""

    type: str
    event_type: str
    ack_key: str
    revision: int | None
    data: msgspec.Raw

    @property
    def is_delete(self) -> bool:
        return self.event_type == DELETED

    @property
    def is_known_event(self) -> bool:
        """Whether the documentation knows the event type."""
        return self.event_type in _STATES


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """Something on the page that is no item. It can be acknowledged only if a key could be found in it."""

    raw: bytes
    reason: str
    ack_key: str | None


@dataclass(frozen=True, slots=True)
class FailedObject:
    """An object that belonged on the page but that the server could not load."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class QueuePage:
    """One answer 200 of the queue; `items` may be empty although more pages follow."""

    items: list[QueueItem]
    unreadable: list[UnreadableItem]
    failed: list[FailedObject]
    count_left: int | None
    """Objects still to come: an estimate, for display only."""

    @property
    def is_empty(self) -> bool:
        return not (self.items or self.unreadable or self.failed)


class _SyncMeta(msgspec.Struct, gc=False):
    event_type: str
    ack_key: str
    revision: int | str | None = None


class _ItemMeta(msgspec.Struct, gc=False):
    type: str
    sync: _SyncMeta


class _Item(msgspec.Struct, gc=False):
    data: msgspec.Raw
    meta: _ItemMeta


class _Failed(msgspec.Struct, gc=False):
    type: str
    id: int | str


class _PageMeta(msgspec.Struct, gc=False):
    failed_objects: list[msgspec.Raw] | None = None
    count_left: msgspec.Raw = msgspec.Raw(b"null")


class _Page(msgspec.Struct, gc=False):
    items: list[_Item]
    meta: _PageMeta = msgspec.field(default_factory=_PageMeta)


class _Rest(msgspec.Struct, gc=False):
    meta: _PageMeta = msgspec.field(default_factory=_PageMeta)


_read_page = msgspec.json.Decoder(_Page).decode
_read_rest = msgspec.json.Decoder(_Rest).decode
_read_item = msgspec.json.Decoder(_Item).decode
_read_failed = msgspec.json.Decoder(_Failed).decode


def read_page(response: Response) -> QueuePage:
    """The page in an answer 200.

    Raises:
        BadAnswer: the body is not an object with a list `items`.
    """
    try:
        page = _read_page(response.body)
    except _UNREADABLE:
        return _read_row_by_row(response)
    unreadable: list[UnreadableItem] = []
    failed = _failed_objects(page.meta, unreadable)
    return QueuePage([_item(found) for found in page.items], unreadable, failed, _count(page.meta))


def _read_row_by_row(response: Response) -> QueuePage:
    """A page on which something is not as documented: only what is wrong is set apart."""
    rows = read_rows(response)
    items: list[QueueItem] = []
    unreadable: list[UnreadableItem] = []
    for row in rows:
        raw = bytes(memoryview(row))
        try:
            items.append(_item(_read_item(_sound_text(raw))))
        except _UNREADABLE as error:
            unreadable.append(UnreadableItem(raw, f"not a queue item: {error!s:.120}", _find_ack_key(raw)))
    meta = _meta_beside(response, rows)
    failed = _failed_objects(meta, unreadable)
    return QueuePage(items, unreadable, failed, _count(meta))


def _meta_beside(response: Response, rows: Sequence[msgspec.Raw]) -> _PageMeta:
    """The page's `meta`, read from the body without its rows.

    Raises:
        BadAnswer: it is not readable: failed objects may be named in it, so the page counts as torn.
    """
    text = response.body.removeprefix(_BYTE_ORDER_MARK)
    position = 0
    for row in rows:
        raw = bytes(memoryview(row))
        position = text.index(raw, position) + len(raw)
    if rows:
        begin = text.index(bytes(memoryview(rows[0])))
        text = text[:begin] + text[position:]
    try:
        return _read_rest(_sound_text(text)).meta
    except _UNREADABLE as error:
        raise bad_answer(response, f"the page's meta cannot be read: {error!s:.120}") from None


def _failed_objects(meta: _PageMeta, unreadable: list[UnreadableItem]) -> list[FailedObject]:
    failed: list[FailedObject] = []
    for entry in meta.failed_objects or ():
        try:
            found = _read_failed(entry)
        except _UNREADABLE as error:
            raw = bytes(memoryview(entry))
            unreadable.append(UnreadableItem(raw, f"not a failed object: {error!s:.120}", None))
        else:
            failed.append(FailedObject(clean_text(found.type), clean_text(str(found.id))))
    return failed


def _sound_text(text: bytes) -> bytes:
    """The text with U+FFFD for each lone surrogate, which the fast decoder refuses."""
    if b"\\ud" in text or b"\\uD" in text:
        return _ESCAPE.sub(lambda found: b"\\ufffd" if found["lone"] else found[0], text)
    return text


def _item(found: _Item) -> QueueItem:
    sync = found.meta.sync
    revision = sync.revision
    if isinstance(revision, str):
        revision = int(revision) if revision.isascii() and revision.isdigit() and len(revision) < 20 else None
    if revision is not None and not 0 <= revision < 2**63:
        revision = None
    return QueueItem(found.meta.type, sync.event_type, sync.ack_key, revision, found.data)


def _count(meta: _PageMeta) -> int | None:
    try:
        return msgspec.json.decode(meta.count_left, type=int)
    except msgspec.MsgspecError:
        return None


def _find_ack_key(raw: bytes) -> str | None:
    """The key of an item that cannot be decoded, if it says `ack_key` exactly once in its structure."""
    found = _ACK_KEY.findall(raw)
    try:
        return msgspec.json.decode(found[0], type=str) if len(found) == 1 else None
    except _UNREADABLE:
        return None
