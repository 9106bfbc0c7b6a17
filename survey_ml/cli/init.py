"""`survey-ml init`."""

from __future__ import annotations

import re
from pathlib import Path

import click
from pydantic import BaseModel

from survey_ml.cli.group import debug_option
from survey_ml.errors import ConfigError


@click.command()
@click.argument("path", default="release.yaml", type=click.Path(dir_okay=False, path_type=Path))
@debug_option
def init(path: Path) -> None:
    """Write a commented release YAML to PATH (release.yaml); a file that is there is left alone."""
    from survey_ml.describe import render_template

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.absolute().parent.name).strip("-._") or "my-release"
    text = render_template(find_options(["extraction"]), name=f"{name}-release")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", "give another name, or move it away first") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "give another folder") from None
    click.echo(f"wrote {path}; put your images under `fields`, then: survey-ml check {path}")


def find_options(wanted: list[str]) -> dict[str, type[BaseModel]]:
    """Return the options of the wanted stages, then of those they need, by stage name."""
    from survey_ml.graph import Graph
    from survey_ml.plugins import get_manager

    graph = Graph.build({name: {} for name in wanted}, get_manager())
    names = [*wanted, *(spec.name for spec in graph.stages if spec.name not in wanted)]
    return {name: type(graph.options[name]) for name in names}
