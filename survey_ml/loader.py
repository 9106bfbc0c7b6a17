"""Read the release YAML, apply settings from the command line, and check the result."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.document import Lines, parse_yaml, read_yaml
from survey_ml.errors import ConfigError
from survey_ml.explain import Path as KeyPath
from survey_ml.explain import explain

_SECTIONS = frozenset(ReleaseConfig.model_fields)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(path: str) -> bool:
    """Say whether a path is a URL such as ``s3://bucket/key``."""
    return bool(_URL.match(path))


def load_config(
    path: str | Path, *, settings: Sequence[str] = (), out: str | None = None, engine: str | None = None
) -> LoadedConfig:
    """Read and check a release YAML.

    Parameters
    ----------
    path : str or Path
        The YAML file.
    settings : sequence of str
        ``stage.key=value`` or ``section.key=value``, which win over the file.
    out : str, optional
        Output folder (relative to the working directory) or URL, instead of the file's.
    engine : str, optional
        ``ray`` or ``local``, instead of the file's.

    Raises
    ------
    ConfigError
        For a file that cannot be read or a document that fails the check: key, what was given,
        what is allowed, the nearest key, and file and line.
    """
    source = Path(path).expanduser().absolute()
    given, lines = read_yaml(source)
    if not isinstance(given, dict):
        raise ConfigError(
            f"{path}: the file must hold keys and values, not {type(given).__name__}",
            "`survey-ml init` writes a file to start from",
        )
    settings = _with_engine(settings, engine)
    given = apply_settings(given, settings)
    if out is not None:
        given["out"] = _absolute(out, Path.cwd())
    return _check(given, source.parent, str(source), settings, lines)


def config_for_images(
    paths: Iterable[str], out: str, *, settings: Sequence[str] = (), engine: str | None = None
) -> LoadedConfig:
    """Make the configuration for ``run image.fits --out DIR``: all defaults."""
    base = Path.cwd()
    images = [p if is_url(p) else glob.escape(_absolute(p, base)) for p in paths]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(out.rstrip("/")).name).strip("-._") or "release"
    given = {"name": name, "fields": images, "out": _absolute(out, base)}
    settings = _with_engine(settings, engine)
    return _check(apply_settings(given, settings), base, "", settings)


def config_of_release(
    kept: Mapping[str, Any], out: str, *, settings: Sequence[str] = (), engine: str | None = None
) -> LoadedConfig:
    """Return the configuration that a release was last run with.

    Parameters
    ----------
    kept : mapping
        What ``release.json`` holds.
    out : str
        Where the release is now.
    settings, engine
        As in `load_config`.

    Raises
    ------
    ConfigError
        For a setting that does not fit.
    """
    settings = _with_engine(settings, engine)
    given = apply_settings(kept["config"], settings)
    # The lines of the YAML may have changed since, so none is named.
    config = _check(given, Path(kept["base"]), "", settings)
    return config.model_copy(update={"out": out, "source": kept["source"]})


def apply_settings(given: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return the document with ``stage.key=value`` settings put in.

    A first part that is a section of the release (``tiling``, ``engine``, ``seed``) means that
    section, any other a stage. Values are read as YAML.

    Raises
    ------
    ConfigError
        For a setting of another form.
    """
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in given.items()}
    for setting in settings:
        keys, text = _split_setting(setting)
        if keys[0] == "stages" and result.get("stages") is None:
            result["stages"] = dict(ReleaseConfig.model_fields["stages"].default)
        here = result
        for key in keys[:-1]:
            inner = here.get(key)
            if inner is not None and not isinstance(inner, dict):
                raise ConfigError(f"setting {setting!r}: {key} holds no keys", f"it is {inner!r}")
            here[key] = dict(inner or {})
            here = here[key]
        here[keys[-1]] = parse_yaml(text, _name_setting(setting))[0]
    return result


def _split_setting(setting: str) -> tuple[tuple[str, ...], str]:
    """Return the keys that a setting names, from the top of the document, and its text."""
    target, equals, text = setting.partition("=")
    keys = tuple(target.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError(
            f"setting {setting!r} has not the form stage.key=value",
            "for example --set extraction.seed_snr=6 or --set tiling.core_px=512",
        )
    if keys[0] not in _SECTIONS:
        if len(keys) == 1:
            raise ConfigError(
                f"setting {setting!r} names neither a section nor a stage's option",
                f"sections: {', '.join(sorted(_SECTIONS))}; options of stages: stage.key=value",
            )
        keys = ("stages", *keys)
    return keys, text


def _name_setting(setting: str) -> str:
    return f"--set {setting.partition('=')[0].strip()}"


def find_places(
    source: str, settings: Iterable[str] = (), lines: Lines | None = None
) -> Callable[[KeyPath], str]:
    """Return a function that says where a key was given.

    Parameters
    ----------
    source : str
        The YAML file; empty when there is none.
    settings : iterable of str
        From the command line; they win over the file.
    lines : mapping, optional
        Lines of the file, if it was read already.

    Returns
    -------
    callable
        Takes a path of keys; gives ``--set stage.key``, ``file:line`` or an empty string.
    """
    given = {_split_setting(setting)[0]: _name_setting(setting) for setting in settings}

    def locate(key: KeyPath) -> str:
        for keys, said in given.items():
            if key[: len(keys)] == keys:
                return said
        if not source:
            return ""
        known = _lines_of(source) if lines is None else lines
        return _place(known, key, Path(source).name)

    return locate


@lru_cache(maxsize=4)
def _lines_of(source: str) -> Lines:
    try:
        return read_yaml(Path(source))[1]
    except ConfigError:
        return {}


def _place(lines: Lines, key: KeyPath, name: str) -> str:
    """Give the place of a path, or of the nearest key above it that the file has."""
    while key and key not in lines:
        key = key[:-1]
    return f"{name}:{lines[key]}" if key in lines else name


def _check(
    given: dict[str, Any], base: Path, source: str, settings: Sequence[str], lines: Lines | None = None
) -> LoadedConfig:
    """Check a document, which has the settings in it, and make its paths absolute."""
    # An empty section (`stages:` with all its lines commented out) is a section not given.
    given = {key: value for key, value in given.items() if value is not None or key not in _SECTIONS}
    if isinstance(given.get("stages"), dict):
        given["stages"] = {name: {} if v is None else v for name, v in given["stages"].items()}
    try:
        release = ReleaseConfig.model_validate(given)
    except ValidationError as error:
        locate = find_places(source, settings, lines)
        raise explain(error, ReleaseConfig, given, locate=locate) from None
    local = {
        key: _absolute(value, base)
        for key in ("reference_catalogue", "truth")
        if (value := getattr(release, key)) is not None
    }
    out = _absolute(release.out, base)
    release = release.model_copy(update=local)
    return LoadedConfig(release=release, base=base, out=out, source=source, settings=tuple(settings))


def _absolute(path: str, base: Path) -> str:
    """Return a URL as it is and a path from ``base`` without ``..`` and ``~``."""
    return path if is_url(path) else str(Path(os.path.normpath(base / Path(path).expanduser())))


def _with_engine(settings: Sequence[str], engine: str | None) -> list[str]:
    return [*settings, *([f"engine.kind={engine}"] if engine else [])]
