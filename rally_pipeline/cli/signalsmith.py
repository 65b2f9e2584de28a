"""`rally-pipeline signalsmith refresh` and `syncs plan|apply|pull`: the catalog, and syncs as code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rally_pipeline.cli.environment import read_settings
from rally_pipeline.cli.failures import ChangesFound, CommandFailed, UserMistake
from rally_pipeline.cli.terminal import remarks, results
from rally_pipeline.settings import Settings

if TYPE_CHECKING:
    from rally_pipeline.signalsmith.client import SignalSmithClient
    from rally_pipeline.signalsmith.refresh import RefreshResult
    from rally_pipeline.signalsmith.sync_files import Finding, SyncFile
    from rally_pipeline.signalsmith.sync_plan import FilePlan

LOCATION = "rally_pipeline"


def register(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(signalsmith)
    group.add_command(syncs)


@click.group(short_help="The catalog of SignalSmith's syncs.")
def signalsmith() -> None:
    """Dagster builds its assets and schedules from a catalog file; these commands keep it up to date."""


@signalsmith.command(short_help="Fetch all syncs and write the catalog.")
@click.option("--accept-shrink", is_flag=True, help="Believe a list that lost more than half of its syncs.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def refresh(accept_shrink: bool, as_json: bool) -> None:
    """Fetch all syncs, check each on its own, write the catalog file and the table signalsmith_syncs.

    Says what was added, changed and removed, which rows were skipped and which syncs get no schedule, and why. A
    running Dagster is asked to load the syncs anew where DAGSTER_WEBSERVER_URL is set.
    """
    from rally_pipeline.signalsmith.connection import open_refresh

    settings = _settings()
    with open_refresh(settings) as opened:
        result = opened.refresh(accept_shrink=accept_shrink)
    reload = _reload(settings) if result.changes.any else "nothing changed"
    if as_json:
        click.echo(json.dumps(_as_json(result, reload), indent=2))
        return
    for line in result.lines():
        results.print(line, markup=False, soft_wrap=True)
    remarks.print(
        f"{len(result.catalog.present)} syncs, {result.scheduled} with a schedule; {result.usage.requests} requests;"
        f" zone {result.catalog.timezone} ({result.catalog.timezone_source}); reload: {reload}",
        markup=False,
        soft_wrap=True,
    )


@click.group(short_help="Syncs as code: compare, apply, pull.")
def syncs() -> None:
    """Keep SignalSmith's syncs as YAML files in SYNCS_DIR, one a file, with the API's own fields.

    Only the fields that a file states are compared and sent. `id` binds a file to one sync, else its name does.
    The file signalsmith.yaml is not a sync: it says how Dagster treats them.
    """


@syncs.command(short_help="Show what apply would do.")
@click.option("--prune", is_flag=True, help="Also delete syncs that have no file.")
@click.option("--check", is_flag=True, help="Exit 3 where files and SignalSmith differ.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def plan(prune: bool, check: bool, as_json: bool) -> None:
    """Compare the files with SignalSmith; changes nothing. Files are checked first, with line numbers."""
    from rally_pipeline.signalsmith.connection import open_client

    settings = _settings()
    files, findings = _read_files(settings, quiet=as_json)
    with open_client(settings) as client:
        made = _make_plan(client, files, prune=prune)
    if as_json:
        click.echo(json.dumps(_plan_as_json(made, findings), indent=2, default=str))
    else:
        _show(made)
    if check and made.actions:
        raise ChangesFound(f"{len(made.actions)} syncs differ from their files")


@syncs.command(short_help="Create, update and pause syncs as the files say.")
@click.option("--prune", is_flag=True, help="Also delete syncs that have no file.")
@click.option("--force", is_flag=True, help="With --prune: delete a sync although a run of it is under way.")
def apply(prune: bool, force: bool) -> None:
    """Make SignalSmith as the files say: create, update (only changed fields), pause, resume.

    Syncs without a file are left alone unless --prune is given. Every change is read back.
    """
    from rally_pipeline.signalsmith.connection import open_client
    from rally_pipeline.signalsmith.sync_apply import apply_action

    settings = _settings()
    files, _ = _read_files(settings, quiet=False)
    if prune and not files:
        raise UserMistake(
            f"{settings.syncs_dir} holds no sync: --prune would delete every sync in SignalSmith"
        )
    failed = 0
    with open_client(settings) as client:
        client.http.check_writable("no sync is created, changed, paused or deleted")
        made = _make_plan(client, files, prune=prune)
        for action in made.actions:
            applied = apply_action(client, action, force=force)
            failed += bool(applied.problem)
            for number, line in enumerate(action.lines()):
                mark = ("failed " if applied.problem else "done   ") if number == 0 else "       "
                results.print(f"{mark}{line}", markup=False, soft_wrap=True)
            if applied.problem:
                results.print(f"       {applied.problem}", markup=False, soft_wrap=True)
    _show_rest(made)
    if failed:
        raise CommandFailed(f"{failed} of {len(made.actions)} changes could not be applied")
    if made.actions:
        remarks.print("Run `rally-pipeline signalsmith refresh` for Dagster to see it.", markup=False)


@syncs.command(short_help="Write a file for every sync that exists.")
@click.option("--overwrite", is_flag=True, help="Replace files that differ (comments in them are lost).")
def pull(overwrite: bool) -> None:
    """Write SignalSmith's syncs as files into SYNCS_DIR. A file that differs is kept unless --overwrite is given."""
    from rally_pipeline.signalsmith.catalog import read_rows
    from rally_pipeline.signalsmith.connection import open_client
    from rally_pipeline.signalsmith.sync_files import read_folder
    from rally_pipeline.signalsmith.sync_pull import pull as pull_syncs

    settings = _settings()
    with open_client(settings) as client:
        found, skipped = read_rows(client.list_syncs())
    files, _ = read_folder(settings.syncs_dir)
    for pulled in pull_syncs(settings.syncs_dir, found, files, overwrite=overwrite):
        remark = " (it differs; --overwrite replaces it)" if pulled.state == "kept" else ""
        results.print(f"{pulled.state:9} {pulled.path} {pulled.name}{remark}", markup=False, soft_wrap=True)
    for row in skipped:
        remarks.print(f"skipped: {row.name}: {row.reason}", markup=False, soft_wrap=True)


def _settings() -> Settings:
    settings = read_settings()
    missing = settings.missing("signalsmith")
    if missing:
        raise UserMistake(
            f"SignalSmith is not configured: set {' and '.join(missing)} (a file .env works too)"
        )
    return settings


def _reload(settings: Settings) -> str:
    from rally_pipeline.signalsmith.defs.reload import request_reload

    return request_reload(settings, LOCATION)


def _as_json(result: RefreshResult, reload: str) -> dict[str, object]:
    return {
        **result.counts(),
        "timezone": result.catalog.timezone,
        "timezone_source": result.catalog.timezone_source,
        "changes": {
            "added": result.changes.added,
            "changed": result.changes.changed,
            "gone": result.changes.gone,
            "returned": result.changes.returned,
            "removed": result.changes.removed,
        },
        "without_schedule": [{"sync": name, "reason": reason} for name, reason in result.unscheduled],
        "skipped_rows": [{"row": row.name, "reason": row.reason} for row in result.catalog.skipped],
        "remarks": [{"sync": name, "remark": text} for name, text in result.warnings],
        "reload": reload,
    }


def _read_files(settings: Settings, *, quiet: bool) -> tuple[list[SyncFile], list[Finding]]:
    from rally_pipeline.signalsmith.sync_files import read_folder

    folder = settings.syncs_dir
    if not Path(folder).is_dir():
        raise UserMistake(
            f"SYNCS_DIR '{folder}' is no folder: `rally-pipeline syncs pull` writes what exists there"
        )
    files, findings = read_folder(folder)
    fatal = [finding for finding in findings if finding.fatal]
    if not quiet:
        for finding in findings:
            if finding not in fatal[-1:]:
                remarks.print(f"{'' if finding.fatal else 'note: '}{finding}", markup=False, soft_wrap=True)
    if fatal:
        raise UserMistake(str(fatal[-1]))
    return files, findings


def _make_plan(client: SignalSmithClient, files: list[SyncFile], *, prune: bool) -> FilePlan:
    from rally_pipeline.signalsmith.catalog import read_rows
    from rally_pipeline.signalsmith.sync_plan import make_plan

    made = make_plan(files, read_rows(client.list_syncs())[0], prune=prune)
    fatal = [finding for finding in made.findings if finding.fatal]
    for finding in made.findings:
        if finding not in fatal[-1:]:
            remarks.print(f"{'' if finding.fatal else 'note: '}{finding}", markup=False, soft_wrap=True)
    if fatal:
        raise UserMistake(str(fatal[-1]))
    return made


def _show(made: FilePlan) -> None:
    for action in made.actions:
        for line in action.lines():
            results.print(line, markup=False, soft_wrap=True)
    _show_rest(made)


def _show_rest(made: FilePlan) -> None:
    if made.unmanaged:
        names = ", ".join(made.unmanaged[:10]) + (" ..." if len(made.unmanaged) > 10 else "")
        remarks.print(
            f"{len(made.unmanaged)} without a file (left alone): {names}", markup=False, soft_wrap=True
        )
    remarks.print(f"{len(made.actions)} to change, {len(made.unchanged)} unchanged", markup=False)


def _plan_as_json(made: FilePlan, findings: list[Finding]) -> dict[str, object]:
    return {
        "actions": [action.as_json() for action in made.actions],
        "unchanged": list(made.unchanged),
        "without_file": list(made.unmanaged),
        "remarks": [str(finding) for finding in (*findings, *made.findings)],
    }
