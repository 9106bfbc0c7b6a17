"""`survey-ml version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as find_version

import click

import survey_ml
from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_table, json_option, json_output

PACKAGES = ("numpy", "scipy", "numba", "astropy", "zarr", "pyarrow", "dask", "prefect", "ray")


@click.command()
@json_option
@debug_option
def version(as_json: bool) -> None:
    """Show the versions of survey_ml and of what its results depend on."""
    found = find_versions()
    with json_output(as_json) as emit:
        emit(found)
    if not as_json:
        rows = [(name, number or "not installed") for name, number in found.items()]
        click.echo(format_table(("package", "version"), rows))


def find_versions() -> dict[str, str | None]:
    """Return the version of each package; None where it is not installed."""
    found: dict[str, str | None] = {"survey-ml": survey_ml.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = find_version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
