"""`survey-ml status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.configuration import find_release
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_bytes, format_count, format_table, json_option, json_output

if TYPE_CHECKING:
    from survey_ml.data.residue import Item
    from survey_ml.data.store import ReleaseStore
    from survey_ml.engine.lastrun import LastRun


@click.command()
@click.argument("release", metavar="RELEASE.yaml | OUT")
@click.option("--out", metavar="DIR", help="Output folder or URL, instead of the YAML's.")
@click.option("--verify", is_flag=True, help="Read every file and compare its checksum.")
@click.option("--repair", is_flag=True, help="Forget damaged units, so that the next run makes them again.")
@click.option("--clean", is_flag=True, help="Remove what interrupted runs left, after listing it.")
@click.option("--watch", is_flag=True, help="Show how far it is until all is done; interrupt to leave.")
@click.option("--every", type=click.FloatRange(min=0.1), default=2.0, help="Seconds between two looks. [2]")
@json_option
@debug_option
@click.pass_context
def status(
    ctx: click.Context,
    release: str,
    out: str | None,
    verify: bool,
    repair: bool,
    clean: bool,
    watch: bool,
    every: float,
    as_json: bool,
) -> None:
    """Show what a release holds: units of work by stage, rows, what is damaged or quarantined,
    and how the last run of it ended.

    With --watch, how many units each stage has done, again and again; with --json one object a line. A
    release that has been triggered and has not begun is waited for.

    Exit code 0: all well; 1: something is damaged or quarantined; 2: there is no release.
    """
    if watch:
        from survey_ml.cli.follow import follow_release, wait_for_release

        ctx.exit(follow_release(wait_for_release(release, out, every), every, as_json))
    with json_output(as_json) as emit:
        place = find_release(release, out)
        residue = _clean(place, quiet=as_json) if clean else []
        with _holding(place) if repair else nullcontext():
            found = inspect_release(place, verify=verify, repair=repair)
        emit({**found, "residue": residue} if clean else found)
    if not as_json:
        _print(found, verify)
    ctx.exit(1 if found["damaged"] or found["quarantined"] else 0)


def _holding(out: str) -> AbstractContextManager[object]:
    """Keep runs off a release, if there is one."""
    from survey_ml.data.lease import hold_lease
    from survey_ml.data.store import ReleaseStore

    store = ReleaseStore.open(out)
    store.describe()
    return hold_lease(store.medium)


def _clean(out: str, *, quiet: bool) -> list[Item]:
    """Remove what interrupted runs left, listing it first."""
    from survey_ml.cli.gc import print_items
    from survey_ml.data.residue import sweep
    from survey_ml.data.store import ReleaseStore

    store = ReleaseStore.open(out)
    store.describe()
    removed = sweep(store, (lambda items: None) if quiet else print_items)
    if removed and not quiet:
        click.echo("removed\n")
    return removed


def inspect_release(out: str, *, verify: bool = False, repair: bool = False) -> dict[str, Any]:
    """Return what a release holds as plain values.

    Parameters
    ----------
    out : str
        Folder or URL of the release.
    verify : bool
        Compare the SHA-256 of every file, not only its presence and size.
    repair : bool
        Remove the commits of damaged units.
    """
    from survey_ml.cli.units import count_units, order_stages
    from survey_ml.data.commit import check_commit, list_commits, list_quarantine, remove_commit
    from survey_ml.data.lease import is_dead, read_holder
    from survey_ml.data.store import ReleaseStore
    from survey_ml.engine.lastrun import read_last_run

    store = ReleaseStore.open(out)
    about = store.describe()
    holder = read_holder(store.medium)
    commits = list_commits(store)
    damaged = []
    n_verified = 0
    unsummed: list[str] = []
    stages: dict[str, Counter[str]] = {}
    rows: Counter[str] = Counter()
    for unit, commit in commits.items():
        wrong = check_commit(store, commit, deep=verify)
        count = stages.setdefault(unit.stage, Counter())
        count["damaged" if wrong else "done"] += 1
        count["bytes"] += sum(file["size"] for file in commit.files.values())
        rows.update(commit.tables)
        n_verified += 0 if wrong else len(commit.files)
        if wrong:
            damaged.append({"field": unit.field, "stage": unit.stage, "tile": unit.tile, "cause": wrong})
            if repair:
                remove_commit(store, unit)
    lost, faults, n_catalogue, unsummed = _check_catalogue(store, verify, repair)
    damaged += faults
    if verify:
        damaged += _verify_metadata(store, repair)
        n_verified += n_catalogue
    quarantined = [
        {"field": unit.field, "stage": unit.stage, "tile": unit.tile, "cause": record["cause"]}
        for unit, record in list_quarantine(store).items()
    ]
    for record in quarantined:
        stages.setdefault(record["stage"], Counter())["quarantined"] += 1
    totals = count_units(store, about)
    others = order_stages(stages.keys() - totals.keys(), about["config"].get("providers", {}))
    columns = ("done", "damaged", "quarantined", "bytes")
    return {
        "name": about["name"],
        "out": out,
        "fields": len(store.fields()),
        "stages": {
            name: {"todo": _count_todo(totals.get(name), count)} | {what: count[what] for what in columns}
            for name in [*totals, *others]
            for count in [stages.get(name, Counter())]
        },
        "rows": dict(sorted(rows.items())),
        "verified": verify,
        "files_verified": n_verified if verify else 0,
        "files_without_checksum": unsummed,
        # The next run sees by itself that a file of the catalogue is gone.
        "wants_repair": bool(damaged) and not repair,
        "damaged": lost + damaged,
        "quarantined": quarantined,
        "repaired": repair and bool(lost + damaged),
        "held_by": None if holder is None or repair or is_dead(holder) else asdict(holder),
        "last_run": read_last_run(store),
    }


def _count_todo(total: int | None, count: Counter[str]) -> int | None:
    """Return how many units are not done, those in quarantine left out; None where nobody can know."""
    return None if total is None else max(0, total - count["done"] - count["quarantined"])


def _verify_metadata(store: ReleaseStore, repair: bool) -> list[dict[str, str]]:
    """Open every array, which reads its metadata; what is damaged is written anew as declared."""
    from survey_ml.errors import StoreError
    from survey_ml.plugins import get_manager
    from survey_ml.products import Kind

    declared = {p.name: p for spec in get_manager().stages() for p in spec.writes if p.kind is Kind.ARRAY}
    damaged = []
    for field in store.fields():
        for product in store.products(field):
            try:
                store.layout(field, product)
            except StoreError as error:
                damaged.append({"field": field, "stage": "", "tile": "", "cause": error.message})
                if repair and product in declared:
                    store.declare(field, declared[product])
    return damaged


def _check_catalogue(
    store: ReleaseStore, verify: bool, repair: bool
) -> tuple[list[dict[str, str]], list[dict[str, str]], int, list[str]]:
    """Look for the files that SHA256SUMS names, and with ``verify`` compare what is in them.

    What is damaged is removed to be written again. Returns what is gone, what is damaged, how many files are
    as they were written and, where they were read, those that have no checksum.
    """
    from survey_ml.export.checksums import SUMS, list_unsummed, read_checksums

    sums, faults = read_checksums(store)
    if not verify:
        sizes = store.medium.measure(list(sums))
        return [_blame(f"{path} is missing") for path, size in sizes.items() if size is None], [], 0, []
    lost, damaged = [], [_blame(fault) for fault in faults]
    if faults and repair:
        # The next run writes it from what is in place.
        store.medium.remove(SUMS)
    n_verified = 0
    for path, digest in sums.items():
        found = store.medium.digest(path)
        n_verified += found == digest
        if found is None:
            lost.append(_blame(f"{path} is missing"))
        elif found != digest:
            damaged.append(_blame(f"{path} differs from what was written"))
            if repair:
                store.medium.remove(path)
    return lost, damaged, n_verified, list_unsummed(store, sums)


def _blame(cause: str) -> dict[str, str]:
    """Return a record of what is wrong with the catalogue."""
    return {"field": "", "stage": "catalogue", "tile": "", "cause": cause}


def _describe_run(run: LastRun, stages: Mapping[str, Mapping[str, int | None]]) -> str:
    """Say how the last run went, what is left to do, and what to do about it."""
    when = {"running": f"since {run.began}", "interrupted": f"last heard of {run.heard}"}
    parts = [f"{run.state}, {when.get(run.state, run.ended or run.heard)}"]
    if run.state == "set aside":
        parts[0] = f"completed, {run.ended or run.heard}, {run.set_aside} set aside"
    if run.reason:
        parts[0] += f" ({run.reason})"
    counts = [count["todo"] for count in stages.values()]
    if None in counts:
        parts.append("some of its stages are not installed here")
    elif todo := sum(count or 0 for count in counts):
        parts.append(f"{format_count(todo, 'unit')} to do")
    if any(count != 0 for count in counts) and run.state in ("failed", "cancelled", "interrupted"):
        parts.append("the same command goes on from what is committed")
    return "; ".join(parts)


def _print(found: dict[str, Any], verify: bool) -> None:
    click.echo(f"{found['name']}: {format_count(found['fields'], 'field')} in {found['out']}\n")
    if held := found["held_by"]:
        who = f"{held['user']}@{held['host']}, process {held['pid']}, since {held['started']}"
        click.echo(f"at work: {who}, last seen {held['renewed']}: {held['command']}\n")
    if found["last_run"] is not None:
        click.echo(f"last run: {_describe_run(found['last_run'], found['stages'])}\n")
    rows = [
        (name, c["done"], c["todo"], c["damaged"], c["quarantined"], format_bytes(c["bytes"]))
        for name, c in found["stages"].items()
    ]
    click.echo(format_table(("stage", "done", "to do", "damaged", "quarantined", "size"), rows))
    if found["rows"]:
        click.echo("\nrows: " + ", ".join(f"{count} {name}" for name, count in found["rows"].items()))
    for what in ("damaged", "quarantined"):
        for record in found[what]:
            parts = ("field", "tile", "stage")
            place = ", ".join(f"{part} {record[part]}" for part in parts if record[part])
            click.echo(f"{what}: {place}: {record['cause']}", err=True)
    if found["damaged"]:
        hint = "the next run makes them again"
        if found["wants_repair"]:
            hint = "run the same command with --repair, then run the release again"
        click.echo(f"hint: {hint}", err=True)
    if found["quarantined"]:
        click.echo("hint: `survey-ml run ... --retry-quarantined` tries them once more", err=True)
    if verify:
        whole = format_count(found["files_verified"], "file")
        if found["damaged"]:
            click.echo(f"\n{whole} with the checksum that was written, beside what is damaged")
        else:
            click.echo(f"\n{whole} compared, each with the checksum that was written")
    for path in found["files_without_checksum"]:
        click.echo(f"no checksum, not compared: {path}")
