"""The options that several commands share, and the configuration that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from survey_ml.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig

Command = TypeVar("Command", bound=Callable[..., Any])

YAML_SUFFIXES = (".yaml", ".yml")
RELEASE = "release.json"
"""What a folder that is a release holds; here by name, so that `--help` imports no store."""


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
    from survey_ml.allowed import allowing, find_not_allowed, release_list

    context = click.get_current_context(silent=True)
    allow = config.release.plugins.allow
    if context is None or allow == release_list():
        return config
    context.with_resource(allowing(allow))
    left_out = sorted({plugin.distribution for plugin in find_not_allowed()})
    if allow is not None and left_out and not context.params.get("quiet"):
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
    if out is None and Path(paths[0]).expanduser().is_dir():
        kept = Path(paths[0]).expanduser() / RELEASE
        hint = "name its images, with --out DIR, or give a release YAML (*.yaml)"
        if kept.is_file():
            hint = f"it holds a release: give its YAML, {reopen(str(kept.parent.absolute())).source}"
        raise ConfigError(f"{paths[0]} is a folder", hint)
    if out is None:
        raise ConfigError(
            f"{paths[0]} is taken for an image, and there is no --out",
            "add --out DIR, or give a release YAML (*.yaml)",
        )
    return config_for_images(paths, out, settings=settings, engine=engine)


def may_be_release(path: str) -> bool:
    """Tell a folder, or a URL that is neither YAML nor image, which may be a release."""
    from survey_ml.loader import is_url

    if not is_url(path):
        return Path(path).expanduser().is_dir()
    from survey_ml.data.inputs import SUFFIXES

    return not path.lower().endswith((*YAML_SUFFIXES, *SUFFIXES))


class NotRunYetError(StoreError):
    """The release of a YAML that no run has begun."""


def find_release(path: str, out: str | None = None) -> str:
    """Return the folder or URL of a release that is named by itself or by its YAML.

    Raises
    ------
    NotRunYetError
        When the YAML's release has no folder yet.
    """
    if out is None and not path.lower().endswith(YAML_SUFFIXES):
        from survey_ml.loader import is_url

        return path if is_url(path) else str(Path(path).expanduser().absolute())
    from survey_ml.data.store import ReleaseStore

    found = load([path], out).out
    if ReleaseStore.open(found).medium.read(RELEASE) is None:
        more = f" --out {out}" if out else ""
        raise NotRunYetError(f"{path}: not run yet", f"survey-ml run {path}{more}")
    return found


def reopen(out: str, settings: Sequence[str] = (), engine: str | None = None) -> LoadedConfig:
    """Return the configuration that a release was last run with, as it is kept in the release.

    Raises
    ------
    StoreError
        When there is no release at ``out``.
    ConfigError
        For a setting that does not fit.
    """
    from survey_ml.data.store import ReleaseStore
    from survey_ml.loader import config_of_release

    kept = ReleaseStore.open(out).describe()
    return _narrow(config_of_release(kept, out, settings=settings, engine=engine))
