"""Every environment variable in one typed place. `.env` in the working folder is read too; the environment wins."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

FEED_START_FORMAT = "%Y-%m-%d-%H:%M"


class SettingsError(Exception):
    """A setting is missing or cannot be used; the message names the variable and what to do."""


class DeleteMode(StrEnum):
    """What a proven delete does to the row: remove it, or set `_deleted_at`."""

    HARD = "hard"
    SOFT = "soft"


def _check_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"'{value}' is not an http(s) URL such as https://acme.rallycrm.io/api/v1")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(f"'{value}' would send the key unencrypted: use https (http is for loopback only)")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("credentials, query and fragment do not belong in the URL")
    return value.rstrip("/")


def _check_webserver(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError(f"'{value}' is not the URL of a Dagster webserver such as http://127.0.0.1:3000")
    return value.rstrip("/")


def _read_feed_start(value: object) -> object:
    if isinstance(value, str):
        try:
            return datetime.strptime(value, FEED_START_FORMAT).replace(tzinfo=UTC)
        except ValueError:
            raise ValueError(f"'{value}' is not of the form YYYY-MM-DD-HH:MM (UTC)") from None
    return value


def _check_whole_hour(value: datetime) -> datetime:
    if value.minute or value.second or value.microsecond:
        raise ValueError("must be a whole hour, because the feed's partitions are hours: use minutes :00")
    return value


def _blank_is_absent(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


Url = Annotated[str, AfterValidator(_check_url)]
OptionalUrl = Annotated[Url | None, BeforeValidator(_blank_is_absent)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_blank_is_absent)]
OptionalText = Annotated[str | None, BeforeValidator(_blank_is_absent)]
FeedStart = Annotated[datetime, BeforeValidator(_read_feed_start), AfterValidator(_check_whole_hour)]


class Settings(BaseSettings):
    """All settings; attribute names are the environment variables' names in lower case."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    rally_pipeline_home: Path = Path(".rally_pipeline")
    rally_pipeline_sandbox: bool | None = None
    """Whether the systems are the sandbox: true refuses unmarked answers, false marked ones; unset takes marked ones
    from loopback only."""
    rally_pipeline_read_only: bool = Field(
        default=False,
        description="`true`: nothing is written to any remote system and the Sell queue is not opened (no session,"
        " acknowledgement, trigger, import, sync run): for development and branch deployments.",
    )
    warehouse_url: OptionalSecret = None
    warehouse_schema: OptionalText = None

    rally_api_url: OptionalUrl = None
    rally_api_key: OptionalSecret = None
    rally_feed_start: FeedStart = datetime(2026, 1, 1, tzinfo=UTC)
    rally_feed_overlap_seconds: int = Field(default=300, ge=0, le=86_400)
    rally_staleness_seconds: int = Field(default=30, ge=0, le=3_600)
    rally_poll_seconds: int = Field(default=60, ge=5, le=86_400)
    rally_autostart: bool = False

    sell_api_url: Url = "https://api.getbase.com"
    sell_access_token: OptionalSecret = None
    sell_device_uuid: OptionalText = None
    sell_drain_cron: str = "*/15 * * * *"

    signalsmith_api_url: OptionalUrl = None
    signalsmith_api_token: OptionalSecret = None
    signalsmith_workspace_id: OptionalText = None
    signalsmith_timezone: OptionalText = None

    dagster_webserver_url: Annotated[
        Annotated[str, AfterValidator(_check_webserver)] | None, BeforeValidator(_blank_is_absent)
    ] = None

    delete_mode: DeleteMode = DeleteMode.HARD
    syncs_dir: Path = Path("syncs")
    imports_dir: Path | None = None
    exports_dir: Path | None = None

    @property
    def home_path(self) -> Path:
        """The data folder as an absolute path (not created here)."""
        return self.rally_pipeline_home.expanduser().resolve()

    @property
    def warehouse(self) -> str:
        """SQLAlchemy URL of the warehouse; it may hold a password, so it is never logged."""
        if self.warehouse_url is not None:
            return self.warehouse_url.get_secret_value()
        return f"sqlite:///{self.home_path / 'warehouse.db'}"

    @property
    def imports_path(self) -> Path:
        """Inbox of files to import."""
        return (self.imports_dir or self.home_path / "imports").expanduser().resolve()

    @property
    def exports_path(self) -> Path:
        """Where exports land."""
        return (self.exports_dir or self.home_path / "exports").expanduser().resolve()

    def missing(self, system: str) -> list[str]:
        """Names of the variables that `system` (rally, sell, signalsmith) still needs; empty if configured."""
        needed = {
            "rally": {"RALLY_API_URL": self.rally_api_url, "RALLY_API_KEY": self.rally_api_key},
            "sell": {"SELL_ACCESS_TOKEN": self.sell_access_token, "SELL_DEVICE_UUID": self.sell_device_uuid},
            "signalsmith": {
                "SIGNALSMITH_API_URL": self.signalsmith_api_url,
                "SIGNALSMITH_API_TOKEN": self.signalsmith_api_token,
                "SIGNALSMITH_WORKSPACE_ID": self.signalsmith_workspace_id,
            },
        }
        return [name for name, value in needed[system].items() if value is None]

    def is_configured(self, system: str) -> bool:
        """Whether every variable that `system` needs is present."""
        return not self.missing(system)

    def secrets(self) -> list[str]:
        """Every secret value in force, for redaction."""
        values = [self.rally_api_key, self.sell_access_token, self.signalsmith_api_token]
        found = [value.get_secret_value() for value in values if value is not None]
        password = urlsplit(self.warehouse).password
        return [*found, *{password, unquote(password)}] if password else found


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and `.env`.

    Raises:
        SettingsError: a variable cannot be used; the message names each one and what was wrong. Values of
            secrets are never part of it.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            name = str(problem["loc"][0]).upper() if problem["loc"] else "settings"
            lines.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
        raise SettingsError("; ".join(lines)) from None
