"""The network around this machine as the environment describes it: a proxy on the way out, own certificate authorities.

Read as users of `requests` expect it: lower-case names too, `NO_PROXY` with its suffixes and ranges.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import requests.utils

from rally_pipeline.http.redaction import escape
from rally_pipeline.http.transport import TransportFailure
from rally_pipeline.http.urls import is_loopback

BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""In the order in which they are asked."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy on the way to the server. `url` may hold a password; `name` is host and port, fit for a message."""

    variable: str
    url: str = field(repr=False)
    name: str
    has_login: bool


@dataclass(frozen=True, slots=True)
class Authorities:
    """The certificate authorities to trust: file or folder, and the variable that names it (empty: the public ones)."""

    path: str
    variable: str = ""

    def check(self) -> None:
        """Look whether the bundle can be used.

        Raises:
            TransportFailure: it cannot; the reason says why.
        """
        if not self.variable or Path(self.path).is_dir():
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(self.path)
        except FileNotFoundError:
            problem = "does not exist"
        except ssl.SSLError:
            problem = "holds no certificates in PEM form"
        except OSError as error:
            problem = f"cannot be read ({(error.strerror or type(error).__name__).lower()})"
        else:
            return
        raise TransportFailure(
            f"{self.variable} names {escape(self.path)}, which {problem}",
            sent=False,
            lasting=True,
            advice=f"correct {self.variable}, or unset it to trust the public authorities",
        )


def find_authorities() -> Authorities:
    """The bundle that the environment names, or the public authorities."""
    for variable in BUNDLE_VARIABLES:
        if path := os.environ.get(variable):
            return Authorities(path, variable)
    return Authorities(certifi.where())


def find_proxy(url: str) -> Proxy | None:
    """The proxy on the way to `url`; None where there is none, as always on the loopback interface.

    Raises:
        TransportFailure: the environment names a proxy that cannot be used.
    """
    if is_loopback(url):
        return None
    scheme = urlsplit(url).scheme
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    if not proxy:
        return None
    variable = _first_set((f"{scheme}_proxy", "all_proxy")) or f"{scheme}_proxy"
    text = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise _unusable(variable.upper(), "is not the URL of a proxy")
    if parts.scheme.lower() != "http":
        # urllib3 speaks TLS within TLS without a deadline for each record.
        kind = escape(parts.scheme.lower()[:20])
        raise _unusable(variable.upper(), f"names a proxy of the kind {kind}://, which is not supported")
    name = f"[{host}]" if ":" in host else host
    return Proxy(variable.upper(), text, f"{escape(name)}:{port or 80}", has_login=bool(parts.username))


def _unusable(variable: str, problem: str) -> TransportFailure:
    return TransportFailure(
        f"{variable} {problem}",
        sent=False,
        lasting=True,
        advice="name one as http://proxy.example:3128, or name the host in NO_PROXY",
    )


def _first_set(names: Iterable[str]) -> str | None:
    return next((name for name in names if os.environ.get(name) or os.environ.get(name.upper())), None)
