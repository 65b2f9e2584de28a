"""Every environment variable in one typed place. `.env` in the working folder is read too; the environment wins."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from rally_pipeline.clock import Clock, SystemClock
from rally_pipeline.dotenv_file import read_dotenv
from rally_pipeline.setting_values import (
    FEED_START_FORMAT,
    SettingsError,
    check_api_url,
    check_printable,
    check_token,
    check_webserver_url,
    clean,
    lower_case,
    read_feed_start,
    read_folder,
)

__all__ = [
    "FEED_START_FORMAT",
    "DeleteMode",
    "Settings",
    "SettingsError",
    "fill_environment",
    "known_secrets",
    "load_settings",
]

NETWORK_VARIABLES = (
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
)
"""What the HTTP client asks the environment for by itself; a file .env may hold them too."""


class DeleteMode(StrEnum):
    """What a proven delete does to the row: remove it, or set `_deleted_at`."""

    HARD = "hard"
    SOFT = "soft"


def _check_key(value: SecretStr) -> SecretStr:
    check_token(value.get_secret_value())
    return value


ApiUrl = Annotated[str, AfterValidator(check_api_url)]
WebserverUrl = Annotated[str, AfterValidator(check_webserver_url)]
Key = Annotated[SecretStr, AfterValidator(_check_key)]
Token = Annotated[str, AfterValidator(check_token)]
Folder = Annotated[Path, BeforeValidator(read_folder)]
FeedStart = Annotated[datetime, BeforeValidator(read_feed_start)]


class Settings(BaseSettings):
    """All settings; attribute names are the environment variables' names in lower case.

    A value that is blank counts as absent.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    rally_pipeline_home: Folder = Field(
        default=Path(".rally_pipeline"),
        description="Data folder: the embedded warehouse, the sandbox's data, Dagster's storage.",
    )
    rally_pipeline_sandbox: bool | None = Field(
        default=None,
        description="Whether the systems are the sandbox: true refuses answers without its mark, false those with it;"
        " absent: marked ones are taken from loopback only.",
    )
    rally_pipeline_read_only: bool = Field(
        default=False,
        description="Whether nothing is written to any remote system and the Sell queue is not opened (no session,"
        " acknowledgement, trigger, import, sync run): for development and branch deployments.",
    )
    warehouse_url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy URL of the warehouse, sqlite:///… or postgresql+psycopg://…; absent: the file"
        " warehouse.db in the home folder.",
    )
    warehouse_schema: str | None = Field(
        default=None,
        description="PostgreSQL schema for all tables; absent: the database's default. SQLite has none.",
    )

    rally_api_url: ApiUrl | None = Field(
        default=None, description="Base URL of the Rally API, such as https://acme.rallycrm.io/api/v1."
    )
    rally_api_key: Key | None = Field(
        default=None,
        description="Key of the Rally API, sent as X-Api-Key; scope read, and write for imports.",
    )
    rally_feed_start: FeedStart = Field(
        default=datetime(2026, 1, 1, tzinfo=UTC),
        description="First hour of the feed's partitions, YYYY-MM-DD-HH:MM in UTC; never change it later.",
    )
    rally_feed_overlap_seconds: int = Field(
        default=300,
        ge=0,
        le=86_400,
        description="How far each read of the feed goes back for entries that appear late, in seconds.",
    )
    rally_staleness_seconds: int = Field(
        default=30,
        ge=0,
        le=3_600,
        description="How stale an answer can be, so how long a delete waits for evidence, in seconds.",
    )
    rally_poll_seconds: int = Field(
        default=60, ge=5, le=86_400, description="Interval of the change sensor, in seconds."
    )
    rally_autostart: bool = Field(
        default=False, description="Whether sensors and schedules, of all systems, start switched on."
    )

    sell_api_url: ApiUrl = Field(
        default="https://api.getbase.com", description="Base URL of the Zendesk Sell API."
    )
    sell_access_token: Key | None = Field(
        default=None, description="Token of the Zendesk Sell API, sent as Bearer; scopes sync and read."
    )
    sell_device_uuid: str | None = Field(
        default=None,
        description="UUID of this warehouse as a device of the Sync queue: make it once, never change it.",
    )
    sell_drain_cron: str = Field(
        default="*/15 * * * *", description="When the Sell queue is drained: five fields of cron, in UTC."
    )

    signalsmith_api_url: ApiUrl | None = Field(
        default=None,
        description="Base URL of the SignalSmith API, such as https://acme.signalsmith.io/api/v1.",
    )
    signalsmith_api_token: Key | None = Field(
        default=None, description="Token of the SignalSmith API, sent as Bearer."
    )
    signalsmith_workspace_id: Token | None = Field(
        default=None, description="SignalSmith's workspace: a part of every path, and sent as X-Workspace-ID."
    )
    signalsmith_timezone: str | None = Field(
        default=None, description="Zone of SignalSmith's crons; absent: the workspace's setting, else UTC."
    )

    dagster_webserver_url: WebserverUrl | None = Field(
        default=None,
        description="Webserver that is asked to load the location anew when the catalog changes.",
    )

    delete_mode: Annotated[DeleteMode, BeforeValidator(lower_case)] = Field(
        default=DeleteMode.HARD,
        description="What a proven delete does to a row: hard removes it, soft sets _deleted_at.",
    )
    syncs_dir: Folder = Field(
        default=Path("syncs"), description="Folder of the sync definitions as YAML, with signalsmith.yaml."
    )
    imports_dir: Folder | None = Field(
        default=None, description="Inbox of files to import; absent: the folder imports in the home folder."
    )
    exports_dir: Folder | None = Field(
        default=None, description="Where exported files land; absent: the folder exports in the home folder."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before the environment before `.env`."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _DotenvSource(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _clean_all(cls, values: dict[str, Any]) -> dict[str, Any]:
        cleaned = {name: clean(value) if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in cleaned.items() if value != ""}

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_controls(cls, value: object) -> object:
        return check_printable(value) if isinstance(value, str) else value

    @property
    def home_path(self) -> Path:
        """The data folder as an absolute path (not created here)."""
        return self.rally_pipeline_home.resolve()

    @property
    def warehouse(self) -> str | Path:
        """SQLAlchemy URL of the warehouse (it may hold a password, so it is never logged), or the file of SQLite.

        The path of a file is not made a URL: what it would be taken apart into need not be the same file.
        """
        if self.warehouse_url is not None:
            return self.warehouse_url.get_secret_value()
        return self.home_path / "warehouse.db"

    @property
    def warehouse_is_file(self) -> bool:
        """Whether the warehouse is embedded (SQLite), not a server's."""
        return isinstance(self.warehouse, Path) or self.warehouse.lower().startswith("sqlite")

    @property
    def imports_path(self) -> Path:
        """Inbox of files to import."""
        return (self.imports_dir or self.home_path / "imports").resolve()

    @property
    def exports_path(self) -> Path:
        """Where exports land."""
        return (self.exports_dir or self.home_path / "exports").resolve()

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
        return found if self.warehouse_url is None else [*found, *_passwords(str(self.warehouse))]


class _DotenvSource(PydanticBaseSettingsSource):
    """The file `.env`, read once for each `Settings`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Part of the base class; `__call__` does not need it."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        names = self.settings_cls.model_fields.keys()
        return {name: value for name, value in read_dotenv(names).items() if name in names}


def load_settings(clock: Clock | None = None, /, **overrides: Any) -> Settings:
    """Read the environment and `.env`; `overrides` win over both, and are cleaned and checked alike.

    Raises:
        SettingsError: a variable cannot be used; the message names each one and what was wrong. Values of
            secrets are never part of it.
    """
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            name = str(problem["loc"][0]).upper() if problem["loc"] else "settings"
            lines.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
        raise SettingsError("; ".join(lines)) from None
    now = (clock or SystemClock()).now()
    if settings.rally_feed_start > now:
        raise SettingsError(
            f"RALLY_FEED_START: lies in the future (by this machine's clock it is {now:%Y-%m-%d %H:%M} UTC); it is the"
            " first hour of the feed that will ever be read"
        )
    return settings


def fill_environment() -> None:
    """Put our variables of `.env`, and the network's, into the process environment, each under its own name.

    Dagster resolves secrets from the environment when a run starts, so that they never enter its storage.

    Raises:
        SettingsError: `.env` cannot be read.
    """
    names = Settings.model_fields.keys()
    written = read_dotenv(names)
    found = written | {name.lower(): value for name, value in os.environ.items()}
    for name in names & found.keys():
        os.environ.setdefault(name.upper(), found[name])
    for name in NETWORK_VARIABLES:
        # The HTTP client reads both spellings by itself; the environment wins.
        if name.lower() in written and name.lower() not in os.environ:
            os.environ.setdefault(name, written[name.lower()])


def known_secrets() -> list[str]:
    """What of the environment must not be shown, also where a setting cannot be used."""
    found = []
    for name in ("RALLY_API_KEY", "SELL_ACCESS_TOKEN", "SIGNALSMITH_API_TOKEN"):
        value = os.environ.get(name, "")
        found += [value, clean(value)]
    url = clean(os.environ.get("WAREHOUSE_URL", ""))
    return [value for value in (*found, *_passwords(url)) if value]


def _passwords(url: str) -> set[str]:
    """Whatever may be a password in a database URL, even in one that is not written as it should be."""
    location, _, options = url.partition("://")[2].partition("?")
    credentials = url.partition("://")[2].rpartition("@")[0]
    found = {credentials.partition(":")[2], location.rpartition("@")[0].partition(":")[2]}
    for name, values in parse_qs(options).items():
        if "password" in name:
            found.update(values)
    return {spelling for value in found if value for spelling in (value, unquote(value))}
