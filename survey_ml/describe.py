"""What the configuration may hold, in words taken from the models themselves."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from survey_ml.config import ReleaseConfig

_NAMES = {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "Any": "any value"}


@dataclass(frozen=True)
class Entry:
    """One key: its name, what it takes, its default as YAML (empty when required), what it means."""

    key: str
    takes: str
    default: str
    help: str
    section: type[BaseModel] | None = None
    """The model below this key, when it is a section."""


def list_entries(model: type[BaseModel]) -> Iterator[Entry]:
    """Yield the keys of a model in the order they are written."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        section = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
        default = "" if field.is_required() else to_yaml(field.get_default(call_default_factory=True))
        words = field.description or (section.__doc__ if section else "") or ""
        yield Entry(name, _describe_type(field), default, words.strip(), section)


def to_yaml(value: Any) -> str:
    """Write a value on one line of YAML."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("...").strip()


def render_template(
    stages: dict[str, type[BaseModel]], *, name: str = "my-release", fields: Sequence[str] = ("*.fits",)
) -> str:
    """Write a release YAML with every key explained.

    Parameters
    ----------
    stages : dict
        Stage name to its options, in the order to show; the first is the one that is asked for.
    name : str
        Name of the release.
    fields : sequence of str
        Its images.

    Returns
    -------
    str
        A valid YAML. ``# `` begins an explanation, ``#key:`` a key with its default.
    """
    quoted = ", ".join(f'"{pattern}"' for pattern in fields)
    required = {"name": name, "fields": f"[{quoted}]", "out": name}
    lines = [
        "# A release for survey-ml. Lines that begin with '#' and a key hold its default: take the '#'",
        "# away to change it. Relative paths are relative to this file.",
        "",
    ]
    for entry in list_entries(ReleaseConfig):
        lines += _comment(entry.help, "")
        if entry.key == "stages":
            lines.append("stages:")
            for i, (stage, options) in enumerate(stages.items()):
                mark = "" if i == 0 else "#"
                lines.append(f"  {mark}{stage}:")
                lines += _render_keys(options, "    ")
        elif entry.section is not None:
            lines.append(f"{entry.key}:")
            lines += _render_keys(entry.section, "  ")
        elif entry.key in required:
            lines.append(f"{entry.key}: {required[entry.key]}")
        else:
            lines.append(f"#{entry.key}: {entry.default}")
        lines.append("")
    return "\n".join(lines)


def render_reference(stages: dict[str, type[BaseModel]]) -> str:
    """Write every key of the release YAML and of the stages' options as Markdown tables."""
    parts = ["### The release\n", _render_table(ReleaseConfig)]
    for entry in list_entries(ReleaseConfig):
        if entry.section is not None:
            parts += [f"### {entry.key}\n", f"{entry.help}\n", _render_table(entry.section)]
        if entry.key == "fields":
            model = _find_entry_model(ReleaseConfig.model_fields["fields"])
            parts += ["### An entry of fields\n", _summary(model), _render_table(model)]
    for stage, options in stages.items():
        parts += [f"### stages.{stage}\n"]
        parts += [_summary(options), _render_table(options)] if options.model_fields else ["No options.\n"]
    return "\n".join(parts)


def _render_keys(model: type[BaseModel], indent: str) -> list[str]:
    lines: list[str] = []
    for entry in list_entries(model):
        lines += _comment(entry.help, indent)
        lines.append(f"{indent}#{entry.key}: {entry.default}".rstrip())
    return lines


def _comment(text: str, indent: str, width: int = 100) -> list[str]:
    import textwrap

    return [f"{indent}# {line}" for line in textwrap.wrap(" ".join(text.split()), width - len(indent))]


def _render_table(model: type[BaseModel]) -> str:
    rows = ["| key | takes | default | |", "|---|---|---|---|"]
    for entry in list_entries(model):
        default = "see below" if entry.section else f"`{entry.default}`" if entry.default else "required"
        text = " ".join(entry.help.split())
        rows.append(f"| `{entry.key}` | {entry.takes} | {default} | {text} |".replace("  |", " |"))
    return "\n".join(rows) + "\n"


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ") + "\n"


def _find_entry_model(field: FieldInfo) -> type[BaseModel]:
    for part in get_args(get_args(field.annotation)[0]):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    raise TypeError(f"{field.annotation} holds no model")


def _describe_type(field: FieldInfo) -> str:
    limits = []
    for mark in field.metadata:
        for attribute, word in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
            limit = getattr(mark, attribute, None)
            if limit is not None:
                limits.append(f"{word} {limit}")
    return " ".join([_name(field.annotation), ", ".join(limits)]).strip()


def _name(kind: Any) -> str:
    """Name a type in plain words: ``tuple[str, ...]`` is ``list of text``."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is None or kind is type(None):
        return "null"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(_name(arg) for arg in args)
    if origin in (tuple, list):
        inner = [arg for arg in args if arg is not Ellipsis]
        return f"list of {len(inner)} numbers" if len(inner) > 1 else f"list of {_name(inner[0])}"
    if origin is dict:
        return f"mapping of {_name(args[0])} to {_name(args[1])}"
    if hasattr(kind, "__metadata__"):  # Annotated[int, Gt(0)]
        limits = [f"> {mark.gt}" for mark in kind.__metadata__ if getattr(mark, "gt", None) is not None]
        return " ".join([_name(args[0]), *limits])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "keys"
    name = getattr(kind, "__name__", str(kind))
    return _NAMES.get(name, "path" if name == "Path" else name)
