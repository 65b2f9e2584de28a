"""How Dagster treats each sync: who triggers it, what feeds it, when to worry.

Two places, the first one winning: the file `signalsmith.yaml` in `SYNCS_DIR`, and the key `rally_pipeline` in the
sync's own `config`. Whatever in them cannot be used makes its sync `observe`d, never triggered, until it is
corrected: a typing error must not start runs.

    defaults:
      ownership: attach
    syncs:
      Contacts to newsletter:        # id or name
        ownership: drive
        upstream: [rally/contacts]   # asset keys or table names; a change there triggers the sync
        deadline_minutes: 120
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from rally_pipeline.signalsmith.lineage import KNOWN_TABLES

FILE_NAME = "signalsmith.yaml"
CONFIG_KEY = "rally_pipeline"
LARGEST_FILE = 1_000_000


class Ownership(StrEnum):
    """Who starts a sync's runs."""

    ATTACH = "attach"
    """Dagster follows the run that SignalSmith starts for a tick, and triggers only where there is none."""
    DRIVE = "drive"
    """Dagster alone triggers; refused while SignalSmith's own schedule is active."""
    OBSERVE = "observe"
    """SignalSmith alone triggers; Dagster only watches."""


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """Options of one sync. `cron` replaces the remote schedule where that was cleared (only with `drive`).

    Of the failed rows of a completed run: more than `warn_above_rows` warn, a share above `fail_above_share` fails
    the check (the run itself stays green: SignalSmith calls it completed).
    """

    ownership: Ownership = Ownership.ATTACH
    upstream: tuple[tuple[str, ...], ...] = ()
    deadline_minutes: int = 360
    grace_seconds: int = 90
    debounce_seconds: int = 60
    warn_above_rows: int = 0
    fail_above_share: float = 0.1
    cron: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OptionsFile:
    """The content of `signalsmith.yaml`; `problem` says why it cannot be used at all."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    syncs: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    def of(self, sync_id: str, name: str, config: Mapping[str, Any]) -> SyncOptions:
        """The options of one sync; never raises."""
        if self.problem:
            return SyncOptions(ownership=Ownership.OBSERVE, problems=(self.problem,))
        options = SyncOptions()
        for where, values in (
            (f"{FILE_NAME}, defaults", self.defaults),
            (f"config.{CONFIG_KEY} of the sync", config.get(CONFIG_KEY, {})),
            (f"{FILE_NAME}, {name!r}", self._entry(sync_id, name)),
        ):
            options = _apply(options, where, values)
        return replace(options, ownership=Ownership.OBSERVE) if options.problems else options

    def unknown(self, ids: set[str], names: set[str]) -> list[str]:
        """Entries that fit no sync, most likely mistyped."""
        return [key for key in self.syncs if key not in ids and key not in names]

    def _entry(self, sync_id: str, name: str) -> object:
        return self.syncs[sync_id] if sync_id in self.syncs else self.syncs.get(name, {})


def read_options(folder: Path) -> OptionsFile:
    """The options file of the folder; empty where there is none. Never raises: a problem is part of the result."""
    path = folder / FILE_NAME
    try:
        if not path.exists():
            return OptionsFile()
        if path.stat().st_size > LARGEST_FILE:
            return OptionsFile(problem=f"{path} is larger than {LARGEST_FILE:,} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return OptionsFile(problem=f"{path} cannot be read: {error}")
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return OptionsFile(problem=f"{path} is no YAML: {_where(error)}")
    return _read_content(path, content)


def asset_key(text: str) -> tuple[str, ...]:
    """The asset key that `rally/contacts` or the table name `rally_contacts` stands for."""
    bare = text.strip().rsplit(".", 1)[-1].lower()
    return KNOWN_TABLES.get(bare) or tuple(part for part in text.strip().split("/") if part)


def _read_content(path: Path, content: object) -> OptionsFile:
    if content is None:
        return OptionsFile()
    if not isinstance(content, Mapping):
        return OptionsFile(problem=f"{path} must hold 'defaults:' and 'syncs:'")
    unknown = sorted(str(key) for key in content if key not in ("defaults", "syncs"))
    if unknown:
        return OptionsFile(problem=f"{path}: unknown key {', '.join(unknown)} (known: defaults, syncs)")
    defaults, syncs = content.get("defaults") or {}, content.get("syncs") or {}
    if not isinstance(defaults, Mapping) or not isinstance(syncs, Mapping):
        return OptionsFile(problem=f"{path}: 'defaults' and 'syncs' must be mappings")
    return OptionsFile(dict(defaults), {str(key): value for key, value in syncs.items()})


def _apply(options: SyncOptions, where: str, values: object) -> SyncOptions:
    if values is None or values == {}:
        return options
    if not isinstance(values, Mapping):
        return _with_problem(options, f"{where}: must be a mapping of options")
    for key, value in values.items():
        known = {item.name for item in fields(SyncOptions)} - {"problems"}
        if key not in known:
            options = _with_problem(options, f"{where}: unknown option {str(key)[:40]!r}")
            continue
        try:
            options = replace(options, **{key: _READERS[key](value)})
        except (ValueError, TypeError) as error:
            options = _with_problem(options, f"{where}: {key}: {error}")
    return options


def _with_problem(options: SyncOptions, problem: str) -> SyncOptions:
    return replace(options, problems=(*options.problems, problem))


def _ownership(value: object) -> Ownership:
    if isinstance(value, str) and value in set(Ownership):
        return Ownership(value)
    raise ValueError(f"{str(value)[:40]!r} is not one of {', '.join(Ownership)}")


def _upstream(value: object) -> tuple[tuple[str, ...], ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(item, str) and asset_key(item) for item in found):
        raise ValueError("must be a list of asset keys such as rally/contacts, or of table names")
    return tuple(dict.fromkeys(asset_key(item) for item in found))


def _between(low: int, high: int) -> Any:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return read


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("must be a number from 0 to 1")
    return float(value)


def _cron(value: object) -> str:
    from rally_pipeline.signalsmith.cron import read_cron

    if not isinstance(value, str):
        raise ValueError("must be a cron expression in quotes")
    read_cron(value)
    return value


_READERS: Mapping[str, Any] = {
    "ownership": _ownership,
    "upstream": _upstream,
    "deadline_minutes": _between(1, 10_080),
    "grace_seconds": _between(0, 3_600),
    "debounce_seconds": _between(0, 86_400),
    "warn_above_rows": _between(0, 10**12),
    "fail_above_share": _share,
    "cron": _cron,
}


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "not readable"
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)
