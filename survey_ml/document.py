"""Read a YAML document safely, remembering the line of every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from survey_ml.errors import ConfigError
from survey_ml.explain import Path as KeyPath

MAX_BYTES = 1 << 20
MAX_NODES = 50_000
MAX_DEPTH = 50

Lines = dict[KeyPath, int]
"""Line (from 1) of every key and list item by its path."""


class _Loader(yaml.SafeLoader):
    """A safe loader with the scalars of YAML 1.2.

    In YAML 1.1 ``1.4e9`` is a string, ``12:30:00`` the number 45000, ``no`` false and
    ``2026-01-31`` a date, none of which is meant in a release file.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:[0-9]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    # PyYAML would read 010 as octal 8.
    text = loader.construct_scalar(node)
    return int(text, 16) if "x" in text else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """Read a YAML file safely.

    Returns
    -------
    document, lines
        Plain Python values, and the line (from 1) of every key and list item by its path.

    Raises
    ------
    ConfigError
        When it cannot be read, is too large or too deep, or holds a key twice.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_BYTES else ""
    except OSError as error:
        hint = "`survey-ml init` writes a file to start from" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not a text file in UTF-8 ({error.reason})", "give a YAML file"
        ) from None
    if size > MAX_BYTES:
        raise ConfigError(f"{path} has {size} bytes; a release file has at most {MAX_BYTES}")
    return parse_yaml(text, path.name)


def parse_yaml(text: str, name: str) -> tuple[Any, Lines]:
    """Parse a document; ``name`` is what messages call it. See `read_yaml`."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            builder = _Builder(loader, name)
            return (None if node is None else builder.build(node)), builder.lines
        finally:
            loader.dispose()
    except RecursionError:
        raise ConfigError(
            f"{name}: more than {MAX_DEPTH} levels", "a release file lists fields by pattern"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        cause = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ConfigError(f"{place}: this is not YAML: {cause}", "check indentation and quotes") from None


class _Builder:
    """Turn nodes into plain values one by one, so that aliases cannot grow without bound."""

    def __init__(self, loader: _Loader, name: str) -> None:
        self.loader = loader
        self.name = name
        self.lines: Lines = {}
        self.count = 0

    def build(self, node: yaml.Node, path: KeyPath = ()) -> Any:
        self.count += 1
        if self.count > MAX_NODES or len(path) > MAX_DEPTH:
            raise ConfigError(
                f"{self._place(node)}: more than {MAX_NODES} values or {MAX_DEPTH} levels",
                "a release file lists fields by pattern",
            )
        self.lines.setdefault(path, node.start_mark.line + 1)
        kind = "seq" if isinstance(node, yaml.SequenceNode) else "map"
        if isinstance(node, yaml.CollectionNode) and node.tag != f"tag:yaml.org,2002:{kind}":
            raise ConfigError(f"{self._place(node)}: the tag {node.tag} is not allowed", "take it out")
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(node, path)
        try:
            return self.loader.construct_object(node)
        except (ValueError, KeyError, AttributeError, TypeError):
            # A tag that the text does not fit, or a number of thousands of digits.
            raise ConfigError(
                f"{self._place(node)}: {str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}",
                "take the tag out, or quote the text",
            ) from None

    def _build_mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{self._place(key_node)}: a key must be a word", "quote it")
            key = str(key_node.value)
            if key in found:
                raise ConfigError(
                    f"{self._place(key_node)}: key {key} is given twice (first in line "
                    f"{self.lines[(*path, key)]})",
                    "keep one of them",
                )
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            found[key] = self.build(value_node, (*path, key))
        return found

    def _place(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"
