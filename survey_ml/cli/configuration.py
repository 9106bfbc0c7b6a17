"""The options that several commands share, and the configuration that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from survey_ml.errors import ConfigError

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig

Command = TypeVar("Command", bound=Callable[..., Any])

YAML_SUFFIXES = (".yaml", ".yml")


def configuration_options(command: Command) -> Command:
    """Add PATHS, ``--out``, ``--engine`` and ``--set`` to a command."""
    for option in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="STAGE.KEY=VALUE",
            help="Set an option of a stage or a section (tiling.core_px=512); may be repeated.",
        ),
        click.option("--engine", type=click.Choice(["ray", "local"]), help="Instead of the YAML's."),
        click.option("--out", metavar="DIR", help="Output folder or URL, instead of the YAML's."),
        click.argument("paths", nargs=-1, required=True, metavar="RELEASE.yaml | IMAGE..."),
    ):
        command = option(command)
    return command


def load(
    paths: Sequence[str], out: str | None, engine: str | None = None, settings: Sequence[str] = ()
) -> LoadedConfig:
    """Load the one YAML in ``paths``, or make a configuration for the images in it.

    Raises
    ------
    ConfigError
        For a YAML among images, two of them, images without ``out``, or an empty ``out``.
    """
    return _narrow(_load(paths, out, engine, settings))


def _narrow(config: LoadedConfig) -> LoadedConfig:
    """Allow only the plugins of this release until the command ends, and say which are left out."""
    from survey_ml.allowed import allowing, find_not_allowed

    context = click.get_current_context(silent=True)
    if context is None:
        return config
    context.with_resource(allowing(config.release.plugins.allow))
    if config.release.plugins.allow is not None and not context.params.get("quiet"):
        if left_out := sorted({plugin.distribution for plugin in find_not_allowed()}):
            click.echo(f"note: installed but not allowed in this release: {', '.join(left_out)}", err=True)
    return config


def _load(paths: Sequence[str], out: str | None, engine: str | None, settings: Sequence[str]) -> LoadedConfig:
    from survey_ml.loader import config_for_images, load_config

    if out is not None and not out.strip():
        raise ConfigError("--out is empty", "give a folder or a URL, such as --out release")
    files = [path for path in paths if path.lower().endswith(YAML_SUFFIXES)]
    if files and len(paths) > 1:
        raise ConfigError(
            f"one release YAML is taken at a time, and {len(paths)} paths were given",
            "list the images under `fields` in the YAML, or leave the YAML out",
        )
    if files:
        return load_config(files[0], settings=settings, out=out, engine=engine)
    if out is None:
        raise ConfigError(
            f"{paths[0]} is taken for an image, and there is no --out",
            "add --out DIR, or give a release YAML (*.yaml)",
        )
    return config_for_images(paths, out, settings=settings, engine=engine)


def find_release(path: str, out: str | None = None) -> str:
    """Return the folder or URL of a release that is named by itself or by its YAML."""
    if out is None and not path.lower().endswith(YAML_SUFFIXES):
        from survey_ml.loader import is_url

        return path if is_url(path) else str(Path(path).expanduser().absolute())
    return load([path], out).out


def reopen(out: str) -> LoadedConfig:
    """Return the configuration that a release was last run with, as it is kept in the release.

    Raises
    ------
    StoreError
        When there is no release at ``out``.
    """
    from survey_ml.config import LoadedConfig, ReleaseConfig
    from survey_ml.data.store import ReleaseStore

    kept = ReleaseStore.open(out).describe()
    release = ReleaseConfig.model_validate(kept["config"])
    return _narrow(LoadedConfig(release=release, base=Path(kept["base"]), out=out, source=kept["source"]))
