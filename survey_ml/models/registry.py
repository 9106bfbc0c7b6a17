"""Which models there are, and where their files lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from survey_ml.errors import ConfigError, PluginError, SurveyMLError
from survey_ml.explain import suggest
from survey_ml.hookspecs import ModelSpec
from survey_ml.models.format import SUFFIX
from survey_ml.plugins import Registry, get_manager, load_factory


@dataclass(frozen=True)
class ModelFile:
    """A model that has a name or a path.

    Attributes
    ----------
    name : str
        As it is registered; for a path, the file's name without its end.
    path : Path
        Of the file; empty when ``fault`` says why there is none.
    origin : str
        Distribution and version, or ``file``.
    summary, fault : str
    """

    name: str
    path: Path
    origin: str
    summary: str = ""
    fault: str = ""


def list_models(registry: Registry | None = None) -> list[ModelFile]:
    """Return the registered models, the built-in ones first; a broken one spoils no other."""
    registry = registry or get_manager()
    specs = sorted(registry.models(), key=lambda spec: not registry.origin_of(spec).builtin)
    return [_locate(spec, registry) for spec in specs]


def find_model(name_or_path: str | Path, registry: Registry | None = None) -> ModelFile:
    """Return the model of a name, or the one in a file or folder.

    Parameters
    ----------
    name_or_path : str or Path
        A registered name goes before a file of the same name. A folder must hold one model.
    registry : Registry, optional
        What is installed, when not given.

    Raises
    ------
    ConfigError
        When there is none.
    PluginError
        When the plugin that brings it fails.
    """
    registry = registry or get_manager()
    specs = {spec.name: spec for spec in registry.models()}
    text = os.fspath(name_or_path)
    if not text.strip():
        raise ConfigError("a model is named by nothing", f"models: {', '.join(specs)}")
    if not isinstance(name_or_path, Path) and text in specs:
        found = _locate(specs[text], registry)
        if found.fault:
            raise PluginError(f"model {text} of {found.origin}: {found.fault}", "mend or reinstall it")
        return found
    path = Path(text).expanduser()
    if path.is_dir():
        inside = sorted(path.glob(f"*{SUFFIX}"))
        if len(inside) != 1:
            names = ", ".join(one.name for one in inside[:5]) or "none"
            raise ConfigError(f"the folder {path} holds {len(inside)} models: {names}", "name one file")
        path = inside[0]
    if path.is_file():
        return ModelFile(path.name.removesuffix(SUFFIX), path, "file")
    broken = [f"plugin {b.distribution} is broken: {b.cause}" for b in registry.broken if text in b.cause]
    raise ConfigError(
        "; ".join([f"there is no model {text}, and no such file{suggest(text, specs)}", *broken]),
        f"models: {', '.join(specs)}; `survey-ml models list` tells more",
    )


def _locate(spec: ModelSpec, registry: Registry) -> ModelFile:
    origin = registry.origin_of(spec)
    whence = f"{origin.distribution} {origin.version}"
    path, fault = Path(), ""
    try:
        found = load_factory(spec.factory, origin.distribution)(spec.name)
        if not isinstance(found, str | os.PathLike):
            fault = f"{spec.factory} returned {type(found).__name__} instead of a path"
        elif not Path(found).is_file():
            fault = f"its file {found} is not there"
        else:
            path = Path(found)
    except SurveyMLError as error:
        fault = error.message
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may even want to end the process
        fault = f"{spec.factory} failed: {type(error).__name__}: {error}"
    return ModelFile(spec.name, path, whence, spec.summary, fault)
