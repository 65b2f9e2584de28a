"""What an engine's error means for a person: one clear line, whose move it is, and whether trying again can help."""

from __future__ import annotations

from dataclasses import dataclass

from rally_pipeline.settings import SettingsError

_VARIABLES = {
    "rally": ("RALLY_API_URL", "RALLY_API_KEY", "https://acme.rallycrm.io/api/v1"),
    "sell": ("SELL_API_URL", "SELL_ACCESS_TOKEN", "https://api.getbase.com"),
    "signalsmith": ("SIGNALSMITH_API_URL", "SIGNALSMITH_API_TOKEN", "https://acme.signalsmith.io/api/v1"),
}


_ROOM_ERRORS: dict[str, tuple[bool, bool]] = {
    # error: (needs a person, may succeed later)
    "rally_pipeline.invariants.InvariantViolation": (False, False),
    "rally_pipeline.rally.tenant.WrongTenant": (True, False),
    "rally_pipeline.rally.deletes.MassDeleteSuspected": (True, False),
    "rally_pipeline.rally.verify.NeverExtracted": (True, False),
    "rally_pipeline.rally.retention.SnapshotRequired": (False, False),
    "rally_pipeline.rally.passes.EndlessList": (False, False),
    "rally_pipeline.rally.files.problems.FileError": (True, False),
    "rally_pipeline.signalsmith.errors.SyncGone": (True, False),
    "rally_pipeline.signalsmith.errors.OwnershipRefused": (True, False),
    "rally_pipeline.signalsmith.errors.TriggerUnknown": (True, False),
    "rally_pipeline.signalsmith.errors.CatalogShrunk": (True, False),
    "rally_pipeline.signalsmith.errors.SignalSmithError": (False, False),
}
"""By name, so that a room is not imported for the sake of its errors. Their texts are clear lines already."""


_SURROUNDINGS = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_BUSY")
"""What SQLite says about disk, rights and neighbours; anything else is a defect."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`line` is fit for a terminal; `mistake`: a setting or the surroundings must be changed by a person first;
    `repeatable`: the same call may succeed later without anybody's doing."""

    line: str
    mistake: bool
    repeatable: bool


def diagnose(error: BaseException) -> Diagnosis | None:
    """The diagnosis of an error that an engine raises on purpose; None for everything else, which is a defect."""
    if isinstance(error, SettingsError):
        return Diagnosis(str(error), mistake=True, repeatable=False)
    for kind in type(error).__mro__:
        known = _ROOM_ERRORS.get(f"{kind.__module__}.{kind.__qualname__}")
        if known is not None:
            return Diagnosis(str(error), *known)
    return (
        _diagnose_api(error)
        or _diagnose_warehouse(error)
        or _diagnose_storage(error)
        or _diagnose_system(error)
    )


def _diagnose_api(error: BaseException) -> Diagnosis | None:
    from rally_pipeline.http import errors

    if not isinstance(error, errors.ApiError):
        return None
    if isinstance(error, errors.ReadOnly):
        return Diagnosis(str(error), mistake=True, repeatable=False)
    url, key, example = _VARIABLES.get(error.system, ("the URL", "the key", ""))
    advice = {
        errors.Unauthorized: f"check {key}: missing, mistyped, revoked or expired",
        errors.Forbidden: f"{key} is valid but lacks the scope for this",
        errors.Redirected: f"check {url}: it points somewhere else; expected is something like {example}",
        errors.OversizedAnswer: "a record of that size cannot be read",
        errors.NotTheApi: f"check {url}: expected is the API of your tenant, something like {example}",
        errors.NotFound: f"check {url}: expected is something like {example}",
    }
    for kind, hint in advice.items():
        if isinstance(error, kind):
            return Diagnosis(f"{error}; {hint}", mistake=True, repeatable=False)
    if isinstance(error, errors.NoAnswer):
        unreachable = not error.sent
        hint = error.advice or (f"check {url} and the network" if unreachable else "")
        line = f"{error}; {hint}" if hint else str(error)
        return Diagnosis(line, mistake=unreachable, repeatable=not error.lasting)
    if isinstance(error, errors.BadAnswer):
        return Diagnosis(f"{error}; such answers usually pass: run it again", mistake=False, repeatable=True)
    if isinstance(error, errors.Throttled):
        return Diagnosis(str(error), mistake=False, repeatable=not error.given_up)
    repeatable = isinstance(error, errors.ServerFailed | errors.Conflict)
    return Diagnosis(str(error), mistake=False, repeatable=repeatable)


def _diagnose_warehouse(error: BaseException) -> Diagnosis | None:
    from rally_pipeline.warehouse import errors

    if isinstance(error, errors.LeaseHeld | errors.FenceLost):
        return Diagnosis(str(error), mistake=False, repeatable=True)
    if isinstance(error, errors.WarehouseError):
        return Diagnosis(str(error), mistake=True, repeatable=error.repeatable)
    return None


def _diagnose_storage(error: BaseException) -> Diagnosis | None:
    """Dagster's own database: errors of the warehouse were translated where they arose."""
    from rally_pipeline.warehouse import diagnosis

    code = getattr(diagnosis.driver_error(error), "sqlite_errorname", "")
    found = diagnosis.diagnose(error, "Dagster's storage") if code.startswith(_SURROUNDINGS) else None
    return None if found is None else Diagnosis(str(found), mistake=True, repeatable=found.repeatable)


def _diagnose_system(error: BaseException) -> Diagnosis | None:
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return Diagnosis(
            f"{error.strerror or error}:{where}" if where else str(error), mistake=True, repeatable=False
        )
    return None
