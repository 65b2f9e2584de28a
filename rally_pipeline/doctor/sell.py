"""Sell: is the token valid, what may it read, and is the device this warehouse's. The queue is never opened."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from rally_pipeline.clock import Clock
from rally_pipeline.doctor.finding import Finding, ok, problem, problem_of, warning
from rally_pipeline.doctor.probe import examine_clock, examine_missing, make_probe
from rally_pipeline.doctor.warehouse import Facts
from rally_pipeline.http.client import HttpClient
from rally_pipeline.http.envelope import decode
from rally_pipeline.http.errors import ApiError, Forbidden
from rally_pipeline.sell.client import QUEUE_ROOT
from rally_pipeline.sell.device import DeviceClaims, check_uuid
from rally_pipeline.sell.errors import DeviceMismatch, explain_scope
from rally_pipeline.settings import Settings


class _Account(msgspec.Struct, gc=False):
    id: int | str


class _AccountBody(msgspec.Struct, gc=False):
    data: _Account


def examine_sell(settings: Settings, facts: Facts, clock: Clock) -> Iterator[Finding]:
    """The token's scopes, the account, the clock, the device."""
    token = settings.sell_access_token
    if token is None:
        yield examine_missing(settings, "sell", given=settings.sell_device_uuid is not None)
    else:
        secret = token.get_secret_value()
        with make_probe(
            settings,
            clock,
            system="sell",
            base_url=settings.sell_api_url,
            headers={"Authorization": f"Bearer {secret}"},
            secrets=[secret],
            consuming=(QUEUE_ROOT,),
        ) as client:
            yield from _examine_token(settings, facts, client, clock)
    if token is not None or settings.sell_device_uuid is not None:
        yield from _examine_device(settings, facts)


def _examine_token(settings: Settings, facts: Facts, client: HttpClient, clock: Clock) -> Iterator[Finding]:
    account: str | None = None
    lacking = []
    try:
        try:
            account = str(decode(client.get("/v2/accounts/self"), _AccountBody).data.id)
        except Forbidden as error:
            lacking.append(problem_of("sell", explain_scope(error, "profile")))
        try:
            client.get("/v2/contacts", params={"page": 1, "per_page": 1})
        except Forbidden as error:
            lacking.append(problem_of("sell", explain_scope(error, "read")))
    except ApiError as error:
        yield problem_of("sell", error)
        return
    finally:
        yield from examine_clock("sell", client, clock)
    yield from lacking
    if not lacking:
        yield ok(
            "sell",
            f"{settings.sell_api_url}: the token is valid and has the scopes read and profile; sync is not tried,"
            " because that would open the queue",
        )
    if account is not None and facts.account is not None and account != facts.account:
        yield problem(
            "sell",
            f"the token belongs to account {account}, but the warehouse mirrors account {facts.account}",
            "check SELL_ACCESS_TOKEN, or use another WAREHOUSE_URL",
        )


def _examine_device(settings: Settings, facts: Facts) -> Iterator[Finding]:
    given, device = settings.sell_device_uuid, facts.device
    if given is None:
        advice = (
            f"set SELL_DEVICE_UUID={device.uuid}, under which this warehouse's rows were acknowledged"
            if device is not None
            else "make one once, e.g. with `uuidgen`, and never change it"
        )
        yield warning("sell", "SELL_DEVICE_UUID is missing", advice)
        return
    try:
        uuid = check_uuid(given)
    except DeviceMismatch as error:
        yield problem_of("sell", error)
        return
    holder = DeviceClaims(settings.home_path / "sell-devices").holder(uuid)
    if device is not None and device.uuid != uuid:
        yield problem(
            "sell",
            f"SELL_DEVICE_UUID is {uuid}, but this warehouse's device is {device.uuid}",
            f"set SELL_DEVICE_UUID={device.uuid}, or decide with `rally-pipeline sell new-device` or `adopt-device`",
        )
    elif holder is not None and holder != facts.identity:
        yield problem(
            "sell",
            f"the device {uuid} is in use by another warehouse ({holder})",
            "a UUID belongs to one warehouse: `rally-pipeline sell new-device`",
        )
    elif device is None:
        yield ok("sell", f"the device {uuid} will be this warehouse's with the first drain")
    else:
        yield ok("sell", f"the device {uuid} is this warehouse's")
