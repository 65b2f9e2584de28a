"""Settings for a command, and the process environment that Dagster's resources read."""

from __future__ import annotations

import os

from rally_pipeline.settings import Settings, load_settings

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


def read_settings() -> Settings:
    """The settings in force; values of `.env` are put into the process environment too.

    Dagster resolves secrets from the environment when a run starts, so that they never enter its storage.

    Raises:
        SettingsError: a variable cannot be used.
    """
    settings = load_settings()
    known = {name.upper() for name in Settings.model_fields} | set(NETWORK_VARIABLES)
    for name, value in _dotenv().items():
        if name.upper() in known and value is not None:
            os.environ.setdefault(name.upper(), value)
    return settings


def _dotenv() -> dict[str, str | None]:
    from dotenv import dotenv_values

    return dict(dotenv_values(".env"))
