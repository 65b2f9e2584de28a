"""The file `.env` in the working folder: names and values, or one clear line why it cannot be read."""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from pathlib import Path

from rally_pipeline.setting_values import SettingsError

FILE = Path(".env")


def read_dotenv(names: Collection[str]) -> dict[str, str]:
    """What the file says, by name in lower case; nothing where there is no such file.

    Args:
        names: of the variables that matter, in lower case. Only for them a line that cannot be read is an error:
            other programs share the file.

    Raises:
        SettingsError: it cannot be read, is not UTF-8, or one of `names` stands in a line that is no assignment.
    """
    from dotenv import dotenv_values

    text = _text()
    if not text:
        return {}
    _refuse_broken_lines(text, names)
    values = dotenv_values(stream=io.StringIO(text))
    return {name.lower(): value for name, value in values.items() if value is not None}


def _text() -> str:
    if FILE.is_dir():  # a virtual environment of that name, for example
        return ""
    try:
        content = FILE.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise SettingsError(f".env in {Path.cwd()} cannot be read: {error.strerror}") from None
    if b"\0" in content:
        raise SettingsError(".env is not UTF-8 (UTF-16?): save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f".env, line {line}: not UTF-8 (Latin-1?): save the file as UTF-8") from None


def _refuse_broken_lines(text: str, names: Collection[str]) -> None:
    from dotenv.parser import parse_stream

    for binding in parse_stream(io.StringIO(text)):
        if not binding.error:
            continue
        found = [word for word in re.findall(r"\w+", binding.original.string.lower()) if word in names]
        if found:
            raise SettingsError(
                f".env, line {binding.original.line}: {found[0].upper()} cannot be read; write NAME=value, or"
                f" NAME='value' with both quotes and nothing behind them"
            )
