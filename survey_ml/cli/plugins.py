"""`survey-ml plugins`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.kit import check, new
from survey_ml.cli.output import format_bytes, format_table, json_option, json_output
from survey_ml.hookspecs import CommandSpec, ExporterSpec, ModelSpec, PanelSpec, ReaderSpec
from survey_ml.plugins import Broken, Registry, get_manager, is_strict
from survey_ml.products import Product
from survey_ml.stage import StageSpec


@click.group(invoke_without_command=True)
@click.option("--release", metavar="RELEASE.yaml", help="Show what this release may use.")
@click.option("--verbose", "-v", is_flag=True, help="Import all that plugins name, and show where they fail.")
@json_option
@debug_option
@click.pass_context
def plugins(ctx: click.Context, release: str | None, verbose: bool, as_json: bool) -> None:
    """List stages, formats, report panels, models and commands, where they come from, and what is broken.

    Plain listing imports only what plugins announce; --verbose also imports their classes and
    functions, each in a process of its own. `new` writes a plugin to start from, `check` says
    whether one keeps the contract.
    """
    if ctx.invoked_subcommand is not None:
        return
    if release is not None:
        from survey_ml.cli.configuration import load

        load([release], None)
    registry = get_manager()
    with json_output(as_json) as emit:
        broken = registry.broken
        if verbose:
            from survey_ml.cli.factories import try_factories

            broken = [*broken, *try_factories(registry)]
        emit(describe(registry, broken))
    if not as_json:
        _print(registry, broken, verbose)
    if is_strict() and broken:
        ctx.exit(2)


def describe(registry: Registry, broken: Sequence[Broken]) -> dict[str, Any]:
    """Return all that is installed, and what is broken, as plain values."""
    kinds: dict[str, Sequence[ReaderSpec | ExporterSpec | PanelSpec | ModelSpec | CommandSpec]] = {
        "readers": registry.readers(),
        "exporters": registry.exporters(),
        "panels": registry.panels(),
        "models": registry.models(),
        "commands": registry.commands(),
    }
    return {
        "stages": [_describe_stage(spec, registry) for spec in _list_stages(registry)],
        **{
            kind: [
                {
                    "name": spec.name,
                    "distribution": registry.origin_of(spec).distribution,
                    "version": registry.origin_of(spec).version,
                    "factory": spec.factory,
                    "summary": spec.summary,
                }
                for spec in specs
            ]
            for kind, specs in kinds.items()
        },
        "broken": broken,
        "not_allowed": registry.not_allowed,
    }


def _list_stages(registry: Registry) -> list[StageSpec]:
    """Return all stages, also those whose name two distributions contend for."""
    names = sorted({spec.name for spec, _ in registry.offers if isinstance(spec, StageSpec)})
    return [spec for name in names for spec, _ in registry.offers_of(name)]


def _describe_stage(spec: StageSpec, registry: Registry) -> dict[str, Any]:
    origin = registry.origin_of(spec)
    return {
        "name": spec.name,
        "version": spec.version,
        "distribution": origin.distribution,
        "distribution_version": origin.version,
        "plugin": origin.plugin,
        "scope": spec.scope,
        "reads": [_describe_product(product) for product in spec.reads],
        "writes": [_describe_product(product) for product in spec.writes],
        "resources": spec.resources,
        "factory": spec.factory,
        "summary": spec.summary,
    }


def _describe_product(product: Product) -> dict[str, Any]:
    return {
        "name": product.name,
        "kind": product.kind,
        "dtype": product.dtype,
        "dims": product.dims,
        "optional": product.optional,
    }


def _print(registry: Registry, broken: Sequence[Broken], verbose: bool) -> None:
    header = ("stage", "version", "from", "scope", "reads", "writes", "cpus", "gpus", "memory")
    rows = []
    for spec in _list_stages(registry):
        origin = registry.origin_of(spec)
        reads = " ".join(f"[{p.name}]" if p.optional else p.name for p in spec.reads)
        writes = [p.name for p in spec.writes]
        shown = " ".join(writes if verbose else writes[:3]) + (
            "" if verbose or len(writes) <= 3 else f" +{len(writes) - 3}"
        )
        whence = f"{origin.distribution} {origin.version}"
        needs = (f"{spec.resources.cpus:g}", f"{spec.resources.gpus:g}", format_bytes(spec.resources.memory))
        rows.append((spec.name, spec.version, whence, spec.scope, reads or "-", shown, *needs))
    click.echo(format_table(header, rows))
    for title, specs in (
        ("reader", registry.readers()),
        ("exporter", registry.exporters()),
        ("panel", registry.panels()),
        ("model", registry.models()),
        ("command", registry.commands()),
    ):
        more = [(s.name, registry.origin_of(s), s.summary) for s in specs]
        if title == "command":  # the built-in ones are in --help
            more = [row for row in more if not row[1].builtin]
        if more:
            click.echo()
            lines = [(name, f"{o.distribution} {o.version}", text) for name, o, text in more]
            click.echo(format_table((title, "from", "summary"), lines))
    if registry.not_allowed:
        click.echo("\nnot allowed:")
    for left in registry.not_allowed:
        whence = f"{left.distribution} {left.version}".strip()
        click.echo(f"  {left.name} ({whence}): {left.cause.removeprefix('not allowed: ')}")
    if broken:
        click.echo("\nbroken:")
    for one in broken:
        whence = f"{one.distribution} {one.version}".strip() or "no distribution"
        click.echo(f"  {one.name} ({whence}): {one.cause}")
        if verbose and one.trace:
            click.echo("    " + one.trace.rstrip().replace("\n", "\n    "))
    if broken and not verbose:
        click.echo("  `survey-ml plugins --verbose` shows where they fail")


plugins.add_command(new)
plugins.add_command(check)
