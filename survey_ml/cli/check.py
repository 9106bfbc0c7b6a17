"""`survey-ml check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.configuration import YAML_SUFFIXES, configuration_options, load
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import (
    format_bytes,
    format_count,
    format_seconds,
    format_table,
    json_option,
    json_output,
    print_set_aside,
    shorten_list,
)

if TYPE_CHECKING:
    from survey_ml.cli.estimate import Cost
    from survey_ml.data.inputs import Source
    from survey_ml.errors import SetAside
    from survey_ml.graph import Graph


@click.command()
@configuration_options
@click.option("--mermaid", is_flag=True, help="Print the graph for Mermaid, and nothing else.")
@json_option
@debug_option
@click.pass_context
def check(
    ctx: click.Context,
    paths: tuple[str, ...],
    out: str | None,
    engine: str | None,
    settings: tuple[str, ...],
    mermaid: bool,
    as_json: bool,
) -> None:
    """Check a release without processing it: configuration, stages, and the headers of all images.

    Exit code 0: all well; 1: some fields cannot be processed; 2: nothing can.
    """
    if out is None and not any(path.lower().endswith(YAML_SUFFIXES) for path in paths):
        out = "release"  # nothing is written
    config = load(paths, out, engine, settings)
    with json_output(as_json) as emit:
        from survey_ml.cli.estimate import estimate_cost
        from survey_ml.data.inputs import find_sources
        from survey_ml.export.bundle import check_export
        from survey_ml.graph import build_graph
        from survey_ml.plugins import get_manager

        registry = get_manager()
        graph = build_graph(config, registry)
        check_export(config, graph)
        if mermaid and not as_json:
            click.echo(graph.to_mermaid())
            return
        sources, aside = find_sources(config, registry.readers())
        cost = estimate_cost(config, graph, [source.field for source in sources]) if sources else None
        notes = _list_missing_gpus(graph)
        emit(_describe(config.release.name, config.out, graph, sources, aside, cost) | {"notes": notes})
    if not as_json:
        _print(graph, sources, aside, cost)
        for note in notes:
            click.echo(f"note: {note}")
    ctx.exit(2 if not sources else 1 if aside else 0)


def _list_missing_gpus(graph: Graph) -> list[str]:
    """Say which stages ask for a GPU where this machine has none; the cluster of the run may have it."""
    wanting = [spec for spec in graph.order if spec.resources.gpus > 0]
    if not wanting:
        return []
    from survey_ml.conformance.check import count_gpus

    if count_gpus():
        return []
    return [
        f"stage {spec.name} asks for {spec.resources.gpus:g} GPU a worker, and this machine has none: "
        "Ray refuses it unless its cluster has one, --engine local calls it without"
        for spec in wanting
    ]


def _describe(
    name: str, out: str, graph: Graph, sources: Sequence[Source], aside: Sequence[SetAside], cost: Cost | None
) -> dict[str, Any]:
    return {
        "name": name,
        "out": out,
        "fields": [
            {
                "name": source.field.name,
                "path": source.path,
                "shape": source.field.shape,
                "beam_arcsec": [source.field.beam.major, source.field.beam.minor, source.field.beam.pa],
                "frequency_hz": source.field.frequency,
                "pixel_arcsec": source.field.pixel_scale,
                "factor_to_jy": source.scale,
                "notes": source.notes,
            }
            for source in sources
        ],
        "set_aside": list(aside),
        "stages": [spec.name for spec in graph.order],
        "mermaid": graph.to_mermaid(),
        "estimate": cost,
    }


def _print(graph: Graph, sources: Sequence[Source], aside: Sequence[SetAside], cost: Cost | None) -> None:
    shown = sources[:20]
    rows = [
        (
            source.field.name,
            f"{source.field.shape[1]} x {source.field.shape[0]}",
            f"{source.field.beam.major:.2f} x {source.field.beam.minor:.2f}",
            f"{source.field.pixel_scale:.2f}",
            "unknown"
            if source.field.frequency != source.field.frequency
            else f"{source.field.frequency / 1e6:.1f}",
        )
        for source in shown
    ]
    if rows:
        click.echo(format_table(("field", "pixels", "beam / arcsec", "pixel / arcsec", "MHz"), rows))
    if len(sources) > len(shown):
        click.echo(f"... and {format_count(len(sources) - len(shown), 'more field')}")
    noted: dict[str, list[str]] = {}
    for source in sources:
        for note in source.notes:
            noted.setdefault(note, []).append(source.field.name)
    for note, names in noted.items():
        what = "field" if len(names) == 1 else "fields"
        click.echo(f"note: {what} {shorten_list(names)}: {note}")
    click.echo("\nstages:" if sources else "stages:")
    click.echo("  " + graph.to_text().replace("\n", "\n  "))
    if cost is not None:
        click.echo(
            f"\n{format_count(len(sources), 'field')}, {cost['megapixels']:.1f} Mpx, "
            f"{format_count(cost['tiles'], 'tile')}, {format_count(cost['units'], 'unit of work')}"
            f"\nabout {format_bytes(cost['disk'])} on disk, {format_bytes(cost['memory'])} of memory with "
            f"{format_count(cost['workers'], 'worker')}, {format_seconds(cost['seconds'])} ({cost['basis']})"
        )
    print_set_aside(aside)
    if aside:
        total = len(sources) + len(aside)
        click.echo(f"{len(aside)} of {format_count(total, 'field')} cannot be processed", err=True)
