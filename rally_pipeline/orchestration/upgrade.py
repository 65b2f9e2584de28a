"""What an earlier version of this package left in Dagster's home folder, and this one no longer has."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

logger = logging.getLogger(__name__)

INSTANCE_FILE = "dagster.yaml"
BACKUP = "dagster.yaml.before-upgrade"
OURS = "rally_pipeline"


def correct_instance_file(home: Path) -> str | None:
    """Take settings that name a class of ours that is gone out of `dagster.yaml`: Dagster's own take its place.

    Everything else in the file stays as it is, to the byte. The file as it was is kept beside it. Returns the line
    that it also logs, or None where nothing had to be changed. A file that is no YAML is left for Dagster to refuse.

    Raises:
        OSError: the folder cannot be written.
    """
    path = home / INSTANCE_FILE
    try:
        before = path.read_text(encoding="utf-8")
        settings = yaml.safe_load(before)
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        return None
    gone = dict(_gone(settings)) if isinstance(settings, Mapping) else {}
    if not gone:
        return None
    backup = _keep(before, home)
    _replace(path.resolve(), _without(before, settings, gone))
    names = ", ".join(f"{setting} ({target})" for setting, target in gone.items())
    line = f"{path} named what this version no longer has: {names} was taken out; the file before is {backup}"
    logger.warning(line)
    return line


def _gone(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names of settings, and the class of ours that each names in vain."""
    for setting, value in settings.items():
        if not isinstance(value, Mapping):
            continue
        module, name = value.get("module"), value.get("class")
        if isinstance(module, str) and isinstance(name, str) and not _is_there(module, name):
            yield str(setting), f"{module}.{name}"


def _is_there(module: str, name: str) -> bool:
    """Whether the class can be loaded; those of other packages are not ours to judge."""
    if module.partition(".")[0] != OURS:
        return True
    try:
        return hasattr(import_module(module), name)
    except ModuleNotFoundError as error:
        # A module of ours that is there but misses another package is a fault of the installation, not of the file.
        return error.name is None or not module.startswith(error.name)


def _without(text: str, settings: Mapping[str, Any], gone: Mapping[str, str]) -> str:
    """The text without these settings and the comments right above them."""
    lines = text.splitlines(keepends=True)
    for setting in gone:
        lines = _cut(lines, setting)
    wanted = {key: value for key, value in settings.items() if key not in gone}
    found = "".join(lines)
    try:
        kept = yaml.safe_load(found) or {}
    except yaml.YAMLError:
        kept = None
    # Written in a way that no line-wise cut gets right: comments are lost, no setting is.
    return found if kept == wanted else yaml.safe_dump(wanted, sort_keys=False)


def _cut(lines: list[str], setting: str) -> list[str]:
    head = re.compile(rf"""["']?{re.escape(setting)}["']?\s*:""")
    start = next((at for at, line in enumerate(lines) if head.match(line)), None)
    if start is None:
        return lines
    end = start + 1
    while end < len(lines) and (lines[end].startswith((" ", "\t")) or not lines[end].strip()):
        end += 1
    while start > 0 and lines[start - 1].startswith("#"):
        start -= 1
    return [*lines[:start], *lines[end:]]


def _keep(text: str, home: Path) -> Path:
    """The file as it was, under a name that nothing has yet."""
    number = 1
    while True:
        path = home / (BACKUP if number == 1 else f"{BACKUP}-{number}")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            number += 1
            continue
        return path


def _replace(path: Path, text: str) -> None:
    """At once or not at all, with the rights that the file had."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(path.stat().st_mode & 0o777)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
