"""`survey-ml init`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click
from pydantic import BaseModel

from survey_ml.cli.group import debug_option
from survey_ml.errors import ConfigError

PATTERNS = ("*.fits", "*.fits.fz", "*.fits.gz", "*.fit", "*.FITS")
"""Images that are looked for beside the YAML; a pattern that matches nothing would be set aside."""


@click.command()
@click.argument("path", default="release.yaml", type=click.Path(dir_okay=False, path_type=Path))
@debug_option
def init(path: Path) -> None:
    """Write a commented release YAML to PATH (release.yaml); a file that is there is left alone.

    Its `fields` name the FITS images that lie beside it.
    """
    from survey_ml.describe import render_template

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.absolute().parent.name).strip("-._") or "my-release"
    images = [pattern for pattern in PATTERNS if any(path.absolute().parent.glob(pattern))]
    text = render_template(
        find_options(["extraction", "noise"]), name=f"{name}-release", fields=images or PATTERNS[:1]
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", "give another name, or move it away first") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "give another folder") from None
    click.echo(f"wrote {path}; put your images under `fields`, then: survey-ml check {path}")


def find_options(names: Sequence[str]) -> dict[str, type[BaseModel]]:
    """Return the options that stages take, by stage name."""
    from survey_ml.plugins import get_manager, load_factory

    registry = get_manager()
    return {name: load_factory(registry.stage(name).factory, name).options_type for name in names}
