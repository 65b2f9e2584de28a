"""The OpenAPI description is valid and the sandbox behaves as it says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from rally_pipeline.sandbox import Sandbox, SandboxServer
from rally_pipeline.sandbox.rally.openapi import describe_api
from tests.sandbox.talk import Talk, small

SCHEMA = schemathesis.openapi.from_dict(describe_api())
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "5"))


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    sandbox = Sandbox(seed=3, records=40, apis=["rally"], limit_per_minute=None)
    with SandboxServer(sandbox) as served:
        yield served


def test_description_is_served_and_valid() -> None:
    talk = small()
    answer = talk.sandbox.handle(talk.sandbox.call("GET", "/rally/openapi.json"))
    assert json.loads(answer.body) == describe_api()
    SCHEMA.validate()
    assert len(OPERATIONS) == 53


def test_description_names_every_route() -> None:
    described = {
        (method.upper(), path)
        for path, item in describe_api()["paths"].items()
        for method in item
        if method != "parameters"
    }
    served = {
        (method, "/" + "/".join(path)) for path, routes in small().rally._routes.items() for method in routes
    }
    files = {
        (method, f"/importexport/{entity}/{action}")
        for entity in ("contacts", "companies", "deals", "activities")
        for method, action in (
            ("GET", "export"),
            ("GET", "export/excel"),
            ("GET", "template"),
            ("POST", "import"),
        )
    }
    assert described == served | files


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_sandbox_behaves_as_described(label: str, server: SandboxServer) -> None:
    talk = Talk(server.sandbox)
    key = {"X-Api-Key": talk.headers["X-Api-Key"]}

    @hypothesis.given(case=OPERATIONS[label].as_strategy())
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def converse(case: Any) -> None:
        case.call_and_validate(
            base_url=f"{server.url}/rally/api/v1", headers=key, excluded_checks=_unfair_checks(label)
        )

    converse()


def _unfair_checks(label: str) -> list[Any]:
    """A schema cannot say that the records to which a body refers must exist, nor that an offset must not lead
    out of the calendar."""
    method, _, path = label.partition(" ")
    refers = method != "GET" and path.startswith(
        ("/contacts", "/deals", "/activities", "/api-keys", "/importexport")
    )
    return [positive_data_acceptance] if refers else []


def test_records_match_their_schemas() -> None:
    """Every answer of a populated sandbox fits the schema that the description gives for it."""
    talk = small(records=200)
    schemas = describe_api()["components"]["schemas"]
    for entity, name in (
        ("contacts", "Contact"),
        ("companies", "Company"),
        ("deals", "Deal"),
        ("activities", "Activity"),
    ):
        for row in talk.rows(f"/{entity}?limit=1000"):
            assert list(row) == list(schemas[name]["properties"])
