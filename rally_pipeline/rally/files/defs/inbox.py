"""The inbox sensor: a run for each new file, and again for one whose import is not finished.

What has been imported is known by the warehouse alone. The cursor only remembers sizes and times, so that a
file that is still being written is left alone and large files are not hashed at every tick, and paces
repetitions.
"""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from rally_pipeline.orchestration import policy
from rally_pipeline.orchestration.diagnosis import diagnose
from rally_pipeline.orchestration.failures import failure
from rally_pipeline.orchestration.resources import WarehouseResource
from rally_pipeline.orchestration.runs import UNDER_WAY
from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.defs.imports import FILES, IMPORT_JOB, import_key
from rally_pipeline.rally.files.folders import hash_file, list_inbox, make_folder
from rally_pipeline.rally.files.problems import FileError
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from rally_pipeline.rally.files.manifest import FileStatus

SENSOR = "rally_import_sensor"
FILE_TAG = "rally_pipeline/import"
NAME_TAG = "rally_pipeline/file"
SECONDS_BETWEEN_TICKS = 30
SECONDS_A_TICK = 20.0
"""Well below the 60 s after which Dagster gives a tick up; what is left over is done by the next one."""
LONGEST_PAUSE = timedelta(minutes=15)
ORDER = (Entity.COMPANIES, Entity.CONTACTS, Entity.DEALS, Entity.ACTIVITIES)
"""Files of a later entity may link to records that files of an earlier one bring."""
_VERSION = 1


@dataclass(slots=True)
class SeenFile:
    """What a tick remembers of a file. `mark` is size and time; `sha256` is empty until two ticks saw the
    same mark; `attempts` runs were asked for, and none before `retry_at` (ISO 8601)."""

    mark: str
    sha256: str = ""
    attempts: int = 0
    retry_at: str = ""


@dataclass(slots=True)
class InboxCursor:
    """The sensor's cursor: one entry per file, by `entity/name`. Any other text counts as an empty one."""

    version: int = _VERSION
    files: dict[str, SeenFile] = field(default_factory=dict)

    @staticmethod
    def read(text: str | None) -> "InboxCursor":
        """The stored cursor; an empty one where the text is missing, damaged or of another version."""
        try:
            stored = json.loads(text or "{}")
            files = {str(name): SeenFile(**seen) for name, seen in stored.get("files", {}).items()}
            found = InboxCursor(int(stored.get("version", 0)), files)
        except (ValueError, TypeError, AttributeError):
            return InboxCursor()
        return found if found.version == _VERSION else InboxCursor()

    def text(self) -> str:
        """For Dagster's storage."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that lies still in the inbox."""

    entity: Entity
    path: Path
    seen: SeenFile


def import_sensor(settings: Settings) -> dg.SensorDefinition:
    """Watches `IMPORTS_DIR/<entity>/`."""

    @dg.sensor(
        name=SENSOR,
        job=IMPORT_JOB,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=policy.sensor_status(settings),
        description=f"Starts an import for each new CSV or XLSX file in {settings.imports_path}/<entity>/, once the"
        " file has not changed between two ticks. Companies come first, then contacts, deals and activities.",
    )
    def rally_import_sensor(
        context: dg.SensorEvaluationContext, warehouse: WarehouseResource
    ) -> dg.SensorResult:
        forbidden = policy.read_only_skip(settings, "no file is imported")
        if forbidden is not None:
            return dg.SensorResult(skip_reason=forbidden, cursor=context.cursor)
        cursor = InboxCursor.read(context.cursor)
        with contextlib.suppress(OSError):  # an inbox that cannot be made is an empty one
            for entity in Entity:
                make_folder(settings.imports_path / entity.value)
        waiting, remarks = look_into(settings.imports_path, cursor)
        try:
            statuses = _read_statuses(waiting, warehouse)
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                raise
            raise failure(error, diagnosis) from error
        requests = list(_requests(context.instance, waiting, statuses, remarks, datetime.now(UTC)))
        keys = [request.partition_key for request in requests if request.partition_key]
        if not requests:
            reason = "; ".join(remarks) or f"no new file in {settings.imports_path}"
            return dg.SensorResult(skip_reason=reason, cursor=cursor.text())
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[FILES.build_add_request(keys)],
            cursor=cursor.text(),
        )

    return rally_import_sensor


def look_into(folder: Path, cursor: InboxCursor) -> tuple[list[Waiting], list[str]]:
    """The files that lie still, in the order in which they should be imported, and remarks on the others.
    Brings the cursor up to date."""
    end = time.monotonic() + SECONDS_A_TICK
    waiting: list[Waiting] = []
    remarks: list[str] = []
    present: dict[str, SeenFile] = {}
    for entity in ORDER:
        for path in list_inbox(folder / entity.value):
            name = f"{entity.value}/{path.name}"
            seen = present[name] = _look_at(path, cursor.files.get(name), hashing=time.monotonic() < end)
            if seen.sha256:
                waiting.append(Waiting(entity, path, seen))
            else:
                remarks.append(f"{name} is new or still being written; the next tick looks again")
    cursor.files = present
    return waiting, remarks


def _look_at(path: Path, before: SeenFile | None, *, hashing: bool) -> SeenFile:
    try:
        status = path.stat()
        mark = f"{status.st_size}:{status.st_mtime_ns}"
        if before is None or before.mark != mark:
            return SeenFile(mark)
        if not before.sha256 and hashing:
            before.sha256 = hash_file(path)[0]
    except (OSError, FileError):
        return SeenFile("")
    return before


def _read_statuses(
    waiting: list[Waiting], warehouse: WarehouseResource
) -> "dict[tuple[Entity, str], FileStatus]":
    if not waiting:
        return {}
    from rally_pipeline.rally.files.journal import ImportJournal
    from rally_pipeline.rally.files.restored import IMPORTED_SINCE
    from rally_pipeline.rally.files.tables import metadata

    statuses = {}
    with warehouse.open() as opened:
        opened.check_not_moved(IMPORTED_SINCE)
        opened.create_tables(metadata)
        for file in waiting:
            record = ImportJournal(opened, file.entity, file.seen.sha256).read()
            if record is not None:
                statuses[file.entity, file.seen.sha256] = record.status
    return statuses


def _requests(
    instance: dg.DagsterInstance,
    waiting: list[Waiting],
    statuses: "dict[tuple[Entity, str], FileStatus]",
    remarks: list[str],
    now: datetime,
) -> Iterator[dg.RunRequest]:
    """Runs for the files of the first entity that has any to import; later entities wait for them."""
    from rally_pipeline.rally.files.manifest import FileStatus

    settled = (FileStatus.DONE, FileStatus.REFUSED, FileStatus.ASSUMED)
    for entity in ORDER:
        open_files = 0
        asked: set[str] = set()
        for file in (file for file in waiting if file.entity is entity):
            seen = file.seen
            status = statuses.get((entity, seen.sha256))
            if status is FileStatus.REFUSED:
                remarks.append(
                    f"{entity.value}/{file.path.name} was refused as a whole: see table import_files"
                )
            if status is FileStatus.ASSUMED:
                remarks.append(
                    f"{entity.value}/{file.path.name} counts as imported since the warehouse was restored:"
                    " `rally-pipeline import --again` takes it nonetheless"
                )
            if status in settled or seen.sha256 in asked:
                continue
            open_files += 1
            asked.add(seen.sha256)
            if _is_under_way(instance, entity, seen.sha256):
                remarks.append(f"{entity.value}/{file.path.name} is being imported")
            elif seen.retry_at and now < datetime.fromisoformat(seen.retry_at):
                remarks.append(f"{entity.value}/{file.path.name} failed; tried again at {seen.retry_at}")
            else:
                _note_attempt(seen, now)
                yield _request(file)
        if open_files:
            return


def _note_attempt(seen: SeenFile, now: datetime) -> None:
    pause = min(timedelta(seconds=SECONDS_BETWEEN_TICKS * 2 ** min(seen.attempts, 10)), LONGEST_PAUSE)
    seen.attempts += 1
    seen.retry_at = (now + pause).isoformat(timespec="seconds")


def _is_under_way(instance: dg.DagsterInstance, entity: Entity, sha256: str) -> bool:
    tags = {FILE_TAG: f"{entity.value}-{sha256[:40]}"}
    return bool(instance.get_runs(filters=dg.RunsFilter(tags=tags, statuses=UNDER_WAY), limit=1))


def _request(file: Waiting) -> dg.RunRequest:
    tags: dict[str, Any] = {
        FILE_TAG: f"{file.entity.value}-{file.seen.sha256[:40]}",
        NAME_TAG: re.sub(r"[^A-Za-z0-9_.-]", "_", file.path.name)[:63],
    }
    return dg.RunRequest(
        partition_key=file.seen.sha256,
        asset_selection=[dg.AssetKey(list(import_key(file.entity)))],
        tags=tags,
    )
