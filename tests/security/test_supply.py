"""What the repository and the installed packages are: pinned, from one index, without dangerous calls or telemetry."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rally_pipeline"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = [
    line.strip()
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]
PINNED = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in CONSTRAINTS}


def sources(*folders: Path) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


def required(*extras: str) -> set[str]:
    """Every package that an installation with these extras pulls in, as the installed metadata says."""
    wanted = [Requirement(text) for text in PROJECT["dependencies"]]
    wanted += [Requirement(text) for name in extras for text in PROJECT["optional-dependencies"][name]]
    found: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        marks = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
        known = name in found
        found.add(name)
        if known and not requirement.extras:
            continue
        for text in requires(name) or ():
            child = Requirement(text)
            applies = child.marker is None or any(
                child.marker.evaluate(mark) for mark in [{"extra": ""}, *marks]
            )
            if applies and canonicalize_name(child.name) not in found:
                wanted.append(child)
    return found


@pytest.mark.security("41")
def test_every_installed_package_has_one_exact_version() -> None:
    assert [line for line in CONSTRAINTS if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    assert len(PINNED) == len(CONSTRAINTS)
    assert required("test") - PINNED.keys() == set()
    assert {name: version(name) for name in required("test")} == {
        name: PINNED[name] for name in required("test")
    }


@pytest.mark.security("41", "44")
def test_nothing_is_required_from_an_address_or_a_repository() -> None:
    listed = [
        *PROJECT["dependencies"],
        *(text for group in PROJECT["optional-dependencies"].values() for text in group),
    ]
    assert [text for text in listed if Requirement(text).url] == []
    assert [line for line in CONSTRAINTS if re.search(r"@|://|^-", line)] == []


@pytest.mark.security("44")
def test_no_other_index_is_named_anywhere() -> None:
    named = re.compile(r"extra-index-url|--index-url|--find-links|dependency_links|trusted-host")
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / ".ci" / "run", ROOT / "README.md"]
    files += sorted((ROOT / "deploy").iterdir())
    assert [path.name for path in files if named.search(path.read_text())] == []
    assert not [path for path in ("pip.conf", "setup.cfg", "requirements.txt") if (ROOT / path).exists()]


@pytest.mark.security("8", "24", "32")
@pytest.mark.parametrize(
    ("package", "fixed"),
    [
        ("urllib3", "2.7.0"),  # decompression of streamed and of redirected answers
        ("dagster-webserver", "1.11.0"),  # files that the UI gave to anybody
        ("dagster", "1.13.0"),
        ("defusedxml", "0.7.1"),
    ],
)
def test_versions_with_known_holes_cannot_be_installed(package: str, fixed: str) -> None:
    (floor,) = (
        specifier.version
        for text in PROJECT["dependencies"]
        if canonicalize_name((requirement := Requirement(text)).name) == package
        for specifier in requirement.specifier
        if specifier.operator == ">="
    )
    assert Version(floor) >= Version(fixed)
    assert Version(PINNED[package]) >= Version(fixed)


FORBIDDEN_CALLS = {
    "eval", "exec", "pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "shelve.open", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "subprocess.getoutput", "joblib.load",
    "pandas.read_pickle", "ssl._create_unverified_context", "tempfile.mktemp",
}  # fmt: skip
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "telnetlib", "ftplib", "xml.dom.minidom", "xml.sax"}


@pytest.mark.security("27")
@pytest.mark.parametrize(
    ("path", "source"), [*sources(PACKAGE)], ids=lambda value: getattr(value, "name", "")
)
def test_no_code_is_made_from_data(path: Path, source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS
            assert not any(keyword.arg == "shell" for keyword in node.keywords)
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & UNSAFE_MODULES
        if isinstance(node, ast.ImportFrom):
            assert node.module not in UNSAFE_MODULES


@pytest.mark.security("6")
def test_no_code_switches_the_certificate_check_off() -> None:
    off = re.compile(
        r"verify\s*=\s*False|CERT_NONE|check_hostname\s*=\s*False|_create_unverified|PROTOCOL_TLSv1|SSLv"
    )
    assert [path.name for path, source in sources(PACKAGE) if off.search(source)] == []


@pytest.mark.security("33")
def test_no_production_module_imports_the_sandbox() -> None:
    allowed = {"cli", "sandbox"}
    guilty = []
    for path, source in sources(PACKAGE):
        room = path.relative_to(PACKAGE).parts[0]
        if room not in allowed and re.search(
            r"^\s*(from|import) rally_pipeline\.sandbox", source, re.MULTILINE
        ):
            guilty.append(str(path))
    assert guilty == []


@pytest.mark.security("40")
@pytest.mark.parametrize(
    "path", ["dagster.yaml", "deploy/dagster.yaml", "rally_pipeline/orchestration/dagster.yaml"]
)
def test_telemetry_is_off_in_every_shipped_file(path: str) -> None:
    assert yaml.safe_load((ROOT / path).read_text())["telemetry"] == {"enabled": False}


@pytest.mark.security("52")
def test_no_key_in_the_repository_looks_like_a_real_one() -> None:
    """A long key is one of the sandbox's or a test's; a short one (`rk_live_abc`) cannot be real."""
    real = re.compile(
        r"\b(?:rk|sk|pk)_live_(?!sandbox)[A-Za-z0-9]{20,}|\bwhsec_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}\b"
    )
    private = re.compile(r"-----BEGIN (?:RSA |EC )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}")
    kinds = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".conf", ""}
    skipped = {".venv", ".git", ".mypy_cache", ".ruff_cache", ".hypothesis", ".pytest_cache", "__pycache__"}
    top = [path for path in ROOT.iterdir() if path.name not in skipped]
    for path in (inner for found in top for inner in (found.rglob("*") if found.is_dir() else [found])):
        if (
            path.suffix in kinds
            and path.is_file()
            and not skipped & set(path.parts)
            and path.stat().st_size < 2**20
        ):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not real.search(text), path
            assert not private.search(text), path


def test_the_installed_packages_are_those_that_the_metadata_names() -> None:
    """The walk over requirements is no empty walk."""
    installed = {canonicalize_name(found.metadata["Name"]) for found in distributions()}
    assert len(required("test")) > 90
    assert required("test") <= installed
