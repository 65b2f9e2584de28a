"""A certificate authority for tests of TLS."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """A test authority and what it signed."""

    folder: Path

    @property
    def authority(self) -> str:
        return str(self.folder / "authority.pem")

    def context(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / "server.key")
        return context


def make_certificates(folder: Path) -> Certificates:
    """A new authority, and certificates of it: good (127.0.0.1, crm.example.test), expired, of a wrong name."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        "req",
        "-x509",
        *new_key,
        "-keyout",
        "authority.key",
        "-out",
        "authority.pem",
        "-subj",
        "/CN=test authority",
    )
    openssl("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=test server")
    openssl("req", "-x509", "-key", "server.key", "-out", "self_signed.pem", "-subj", "/CN=localhost")
    for name, days, names in (
        ("good", "2", "IP:127.0.0.1,DNS:crm.example.test"),
        ("expired", "-1", "IP:127.0.0.1"),
        ("wrong", "2", "DNS:other.example"),
    ):
        (folder / "extensions").write_text(f"subjectAltName={names}\n")
        openssl(
            *("x509", "-req", "-in", "server.csr", "-CA", "authority.pem", "-CAkey", "authority.key"),
            *("-CAcreateserial", "-out", f"{name}.pem", "-days", days, "-extfile", "extensions"),
        )
    return Certificates(folder)
