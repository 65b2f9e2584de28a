"""One warehouse mirrors one tenant: a key of another tenant is noticed before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rally_pipeline.warehouse import Transaction

_STREAM = "rally.tenant"


class WrongTenant(Exception):
    """The records belong to another tenant than the one that this warehouse mirrors."""


class _Owned(msgspec.Struct, gc=False):
    tenantId: str | None = None  # noqa: N815 (name of the API)


_read_owner = msgspec.json.Decoder(_Owned).decode


def owner_of(raw: msgspec.Raw) -> str | None:
    """The tenant that a record says it belongs to."""
    try:
        return _read_owner(raw).tenantId
    except (msgspec.MsgspecError, RecursionError):
        return None


def known_tenant(tx: Transaction) -> str | None:
    """The tenant that this warehouse mirrors; None before the first record."""
    known = tx.state(_STREAM)
    return None if known is None else str(known["tenant_id"])


def check_tenant(tx: Transaction, rows: Sequence[msgspec.Raw]) -> None:
    """Remember the tenant of the first record ever seen; refuse records of another one.

    Raises:
        WrongTenant: nothing of the transaction may be kept.
    """
    for raw in rows:
        tenant = owner_of(raw)
        if tenant is None:
            continue
        known = tx.state(_STREAM) or tx.claim_state(_STREAM, {"tenant_id": tenant})
        if known["tenant_id"] != tenant:
            raise WrongTenant(
                f"these records belong to tenant {tenant}, but the warehouse mirrors tenant"
                f" {known['tenant_id']}: check RALLY_API_URL and RALLY_API_KEY, or use another WAREHOUSE_URL"
            )
