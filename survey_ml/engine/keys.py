"""The key of a unit of work: what made its outputs, as one hash; and what changed between two."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from survey_ml.field import Field
from survey_ml.stage import Options, Scope, StageSpec, list_files

PACKAGES = ("numpy", "scipy", "numba", "astropy")
"""Packages that change numbers. A patch release fixes bugs that a stage's own version answers for."""


def hash_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value, the same whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def unit_key(made_by: Mapping[str, Any], tile: str) -> str:
    """Return the key of one tile of a field and stage from what makes the whole of it."""
    return hash_json({"made_by": made_by, "tile": tile})


@cache
def package_versions() -> dict[str, str]:
    """Return major.minor of the packages that change numbers."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = ".".join(version(name).split(".")[:2])
        except PackageNotFoundError:
            found[name] = "none"
    return found


def describe_field(field: Field) -> dict[str, Any]:
    """Return all of a field that can change a stage's numbers, as JSON.

    The name is left out: it is in the unit, and no other unit is compared with this one.
    """
    described = dataclasses.asdict(field)
    del described["name"]
    described["shape"] = list(field.shape)
    # NaN is not equal to itself and is not JSON.
    described["frequency"] = None if field.frequency != field.frequency else field.frequency
    return described


def describe_ingest(
    spec: StageSpec, *, sha256: str, reader: str, hdu: str | int | None, scale: float, core: int
) -> dict[str, Any]:
    """Return what makes the stored image of a field.

    Parameters
    ----------
    spec : StageSpec
        That of ``ingest``.
    sha256 : str
        Of the input file. Its path is left out: a moved file is the same file.
    reader, hdu, scale
        How it is read.
    core : int
        Side of a tile's core in pixels: the shard.
    """
    return {
        "stage": spec.name,
        "version": spec.version,
        "input": {"sha256": sha256, "reader": reader, "hdu": hdu, "scale": scale},
        "tiling": {"core": core},
    }


def describe_stage(
    spec: StageSpec,
    options: Options,
    *,
    field: Any,
    reads: Mapping[str, Any],
    core: int,
    seed: int,
) -> dict[str, Any]:
    """Return what makes the outputs of a stage on one field (or on the release).

    Parameters
    ----------
    spec, options
        The stage.
    field : JSON
        Of `describe_field`; at release scope a mapping of field name to it.
    reads : mapping
        Stage read to the hash of what made it in this field. It stands for all tiles of the
        field, since halos and widened windows may touch any of them. At release scope a mapping
        of stage to field name to hash.
    core : int
        Side of a tile's core; it counts where there is one unit a tile.
    seed : int
        Of the release.
    """
    labelled = list_files(options)
    labels = {str(path): label for label, path in labelled.items()}
    made_by: dict[str, Any] = {
        "stage": spec.name,
        "version": spec.version,
        "factory": spec.factory,
        "options": _relabel(options.model_dump(mode="json"), labels),
        "field": field,
        "reads": dict(reads),
        "packages": package_versions(),
        "seed": seed,
    }
    if spec.scope in (Scope.TILE, Scope.SOURCE):
        made_by["tiling"] = {"core": core}
    named = {path for path in _files_named(options.model_dump()) if path not in labels}
    files = {path: hash_file(path) for path in named}
    files |= {label: hash_file(str(path)) for label, path in labelled.items()}
    if files:
        made_by["files"] = files
    return made_by


def _relabel(value: Any, labels: Mapping[str, str]) -> Any:
    """Put labels in place of the paths of files that have one, wherever options hold them."""
    if isinstance(value, Mapping):
        return {name: _relabel(inner, labels) for name, inner in value.items()}
    if isinstance(value, list):
        return [_relabel(inner, labels) for inner in value]
    return labels.get(value, value) if isinstance(value, str) else value


def _files_named(value: Any) -> Iterator[str]:
    """Yield the files that options name: models and catalogues are inputs like any other."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _files_named(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _files_named(inner)
    # A bare word such as "image" is no path, whatever lies in the working directory.
    elif isinstance(value, Path) or (isinstance(value, str) and "/" in value and len(value) < 4096):
        try:
            if Path(value).is_file():
                yield str(value)
        except (OSError, ValueError):
            return


def hash_file(path: str) -> str:
    """Return the SHA-256 of a local file; read again only when its size or time changes."""
    state = Path(path).stat()
    return _hash_file(path, state.st_size, state.st_mtime_ns)


@cache
def _hash_file(path: str, size: int, mtime: int) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def explain_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say what differs between two descriptions of what makes a unit.

    Returns
    -------
    str
        ``code: ...``, ``option ...: old -> new`` or ``input changed: ...``, joined by ``; ``.
    """
    parts = []
    for what in ("version", "factory"):
        if old.get(what) != new.get(what):
            parts.append(f"code: {what} {_show(old.get(what))} -> {_show(new.get(what))}")
    for name, before, after in _differences(old.get("packages"), new.get("packages")):
        parts.append(f"code: {name} {_show(before)} -> {_show(after)}")
    for name, before, after in _differences(old.get("options"), new.get("options")):
        parts.append(f"option {name}: {_show(before)} -> {_show(after)}")
    if old.get("seed") != new.get("seed"):
        parts.append(f"option seed: {_show(old.get('seed'))} -> {_show(new.get('seed'))}")
    for name, before, after in _differences(old.get("tiling"), new.get("tiling")):
        parts.append(f"option tiling.{name}: {_show(before)} -> {_show(after)}")
    for name, _, after in _differences(old.get("files"), new.get("files")):
        parts.append(f"input changed: {name}" + ("" if after else " is no longer read"))
    for name, before, after in _differences(old.get("input"), new.get("input")):
        change = "contents of the image file" if name == "sha256" else f"{name} {before} -> {after}"
        parts.append(f"input changed: {change}")
    for name, before, after in _differences(old.get("field"), new.get("field")):
        short = isinstance(before, str | int | float | list) and name != "header"
        parts.append(f"input changed: {name}" + (f" {_show(before)} -> {_show(after)}" if short else ""))
    reads = sorted({name.split(".")[0] for name, _, _ in _differences(old.get("reads"), new.get("reads"))})
    if reads:
        parts.append(f"input changed: {', '.join(reads)}")
    return "; ".join(parts) or "code: the way keys are made"


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, old and new value of every leaf that differs."""
    old = {} if old is None else old
    new = {} if new is None else new
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", before, after


def _show(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
