"""Turn a failed check of a model into an error that names the key, what was given and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from survey_ml.errors import ConfigError

T = TypeVar("T")
Path = tuple[str | int, ...]
"""Keys and list positions from the top of a document."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the allowed name most like ``name``, or an empty string when none is close."""
    found = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return found[0] if found else ""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return ``; did you mean X?``, or nothing when no allowed name is close."""
    near = nearest(name, allowed)
    return f"; did you mean {near}?" if near else ""


def describe(value: Any, limit: int = 60) -> str:
    """Show a given value and its type, shortened."""
    text = repr(value)
    return f"{text[:limit]}{'...' if len(text) > limit else ''} ({type(value).__name__})"


def dotted(path: Path) -> str:
    """Write a path as ``stages.extraction.seed_snr`` or ``fields[0].path``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return where the first problem is, as ``fields.2``, and what it is."""
    first = error.errors(include_url=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"]


def parse_settings(kind: type[T], given: Mapping[str, Any], name: str, *, seed: int | None = None) -> T:
    """Make a dataclass of settings that somebody wrote.

    Parameters
    ----------
    kind : type
        A dataclass. Its ``seed`` is no setting.
    given : mapping
        Setting to value.
    name : str
        Of the settings, for errors.
    seed : int, optional
        Of everything random, where the dataclass has one.

    Raises
    ------
    ConfigError
        When a setting is unknown, of another type or out of range.
    """
    known = [item.name for item in fields(kind) if item.name != "seed"]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise ConfigError(
                f"unknown key: {name} has no setting {key}{suggest(key, known)}", f"known: {', '.join(known)}"
            )
    try:
        return TypeAdapter(kind).validate_python({**given} if seed is None else {**given, "seed": seed})
    except ValidationError as error:
        key, problem = first_problem(error)
        raise ConfigError(f"{key} of {name} is wrong: {problem}", "see docs/models.md") from None


def explain(
    error: ValidationError,
    model: type[BaseModel],
    given: Any,
    *,
    locate: Callable[[Path], str] = lambda path: "",
    stage: str = "",
) -> ConfigError:
    """Describe every problem of a document that failed the check.

    Parameters
    ----------
    error : ValidationError
        What pydantic found.
    model : type of BaseModel
        The model that was checked against.
    given : Any
        The document as read.
    locate : callable
        Gives ``file:line`` of a path, or an empty string.
    stage : str
        The stage whose options these are; empty for the release itself.

    Returns
    -------
    ConfigError
        One line a problem; the hint is about the first.
    """
    found: dict[Path, tuple[str, str]] = {}
    for item in error.errors(include_url=False):
        path = _follow(item["loc"], given, item["type"] in ("extra_forbidden", "missing"))
        # A union reports each of its members; the one that matched deepest is what was meant.
        if any(known[: len(path)] == path for known in found):
            continue
        for known in [known for known in found if path[: len(known)] == known]:
            del found[known]
        found[path] = _word(item, path, model, stage)
    lines = []
    for path, (text, _) in found.items():
        place = locate(path)
        lines.append(f"{place}: {text}" if place else text)
    hints = [hint for _, hint in found.values() if hint]
    return ConfigError("\n".join(lines), hints[0] if hints else "")


def _follow(loc: tuple[int | str, ...], given: Any, key_problem: bool) -> Path:
    """Drop the parts of a pydantic location that are not in the document (union members)."""
    path: list[str | int] = []
    here = given
    for i, part in enumerate(loc):
        known = isinstance(here, Mapping) and part in here
        if not isinstance(part, str) and isinstance(here, list | tuple):
            known = part < len(here)
        if known:
            here = here[part]
        elif not (key_problem and i == len(loc) - 1 and isinstance(here, Mapping | list | tuple)):
            continue
        path.append(part)
    return tuple(path)


def _word(item: Any, path: Path, model: type[BaseModel], stage: str) -> tuple[str, str]:
    """Put one problem into words: message and hint."""
    owner = f"stage {stage}" if stage else "the release"
    allowed = sorted(_model_at(model, path[:-1]).model_fields) if path else []
    key = str(path[-1]) if path else ""
    if len(path) > 1:
        owner = f"{dotted(path[:-1])} of {owner}" if stage else dotted(path[:-1])
    if item["type"] == "extra_forbidden":
        choice = ", ".join(allowed) or "none: it has no options"
        return f"unknown key {key} of {owner}{suggest(key, allowed)}", f"allowed keys: {choice}"
    if item["type"] == "missing" and isinstance(path[-1], int):
        needed = _count_values(model, path[:-1])
        few = f"has too few values{f': {needed} are needed' if needed else ''}"
        return f"{owner} {few}; given {describe(item['input'])}", _help(model, path)
    if item["type"] == "missing":
        return f"key {key} of {owner} is missing", f"add {key}: {_help(model, path)}".rstrip(": ")
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    name = f"{dotted(path)} of stage {stage}" if stage else dotted(path) or "the document"
    return f"{name}: {message}; given {describe(item['input'])}", _help(model, path)


def _count_values(model: type[BaseModel], path: Path) -> int:
    """Return how many values the list at ``path`` takes; 0 when any number."""
    field = _model_at(model, path[:-1]).model_fields.get(str(path[-1])) if path else None
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    fixed = [get_args(kind) for kind in kinds if get_origin(kind) is tuple]
    return len(fixed[0]) if fixed and Ellipsis not in fixed[0] else 0


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """Return the model that holds the keys at ``path``."""
    here = model
    for part in path:
        if isinstance(part, int) or part not in here.model_fields:
            continue
        inner = _find_model(here.model_fields[part].annotation)
        if inner is None:
            return BaseModel
        here = inner
    return here


def _find_model(annotation: Any) -> type[BaseModel] | None:
    """Find the model in an annotation such as ``tuple[str | FieldOverride, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _find_model(inner)
        if found is not None:
            return found
    return None


def _help(model: type[BaseModel], path: Path) -> str:
    """Return the description of the key at ``path``."""
    names = [part for part in path if isinstance(part, str)]
    if not names:
        return ""
    owner = _model_at(model, tuple(names[:-1]))
    field = owner.model_fields.get(names[-1])
    return f"{names[-1]}: {field.description}" if field and field.description else ""
