"""What commands print: one JSON object, or text for people."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from survey_ml.errors import SetAside

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


def to_plain(value: Any) -> Any:
    """Turn a value into what JSON can hold; NaN and infinities become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


@contextlib.contextmanager
def json_output(as_json: bool) -> Iterator[Callable[[Any], None]]:
    """Keep standard output for one JSON object: all else that is printed inside goes to standard error.

    Yields
    ------
    callable
        Prints an object; call it once. Without ``as_json`` it does nothing.
    """
    if not as_json:
        yield lambda value: None
        return
    stdout = sys.stdout
    stdout.flush()
    # Ray and the libraries below it write to the file descriptor, not to sys.stdout.
    saved = os.dup(1) if stdout is sys.__stdout__ else None
    if saved is not None:
        os.dup2(2, 1)
    given: list[str] = []
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield lambda value: given.append(json.dumps(to_plain(value), allow_nan=False))
    finally:
        if saved is not None:
            stdout.flush()
            os.dup2(saved, 1)
            os.close(saved)
    for text in given:
        stdout.write(text + "\n")
        stdout.flush()


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Line up columns: text to the left, numbers to the right."""
    cells = [[_show(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        for i in range(len(header))
    ]

    def join(line: Sequence[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join([join(header), join(["-" * width for width in widths]), *map(join, cells)])


def show_controls(text: str) -> str:
    """Make visible what would steer a terminal: a file may have any name."""
    return "".join(one if one.isprintable() or one in "\n\t" else f"\\x{ord(one):02x}" for one in text)


def format_bytes(size: float) -> str:
    """Write a number of bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def format_seconds(seconds: float) -> str:
    """Write a duration as ``12 s``, ``3 min 20 s`` or ``5 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_count(number: int, noun: str) -> str:
    """Write a number of things: ``1 field``, ``2 fields``."""
    first, space, rest = noun.partition(" ")
    return f"{number} {first}{'' if number == 1 else 's'}{space}{rest}"


def shorten_list(names: Sequence[str], most: int = 3) -> str:
    """Write a list of names, at most ``most`` of them and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def tell_at_terminal(text: str) -> None:
    """Say what is being done on standard error, where somebody watches; as bars, nothing elsewhere."""
    if sys.stderr.isatty():
        click.echo(f"{text} ...", err=True)


def print_set_aside(items: Sequence[SetAside]) -> None:
    """Name what was left out, why, and what to do, on standard error; what is alike on one line."""
    groups: dict[tuple[str, str, str], list[SetAside]] = {}
    for item in items:
        groups.setdefault((item.stage, item.cause, item.hint), []).append(item)
    for (stage, cause, hint), same in groups.items():
        fields = list(dict.fromkeys(item.field for item in same))
        tiles = [item.tile for item in same if item.tile]
        if len(fields) == 1:
            parts = [f"field {fields[0]}"]
            if tiles:
                one = len(tiles) == 1
                parts += [f"tile {tiles[0]}" if one else f"{len(tiles)} tiles ({shorten_list(tiles)})"]
        else:
            what = f"{format_count(len(tiles), 'tile')} of " if tiles else ""
            parts = [f"{what}{len(fields)} fields ({shorten_list(fields)})"]
        if stage:
            parts.append(f"stage {stage}")
        click.echo(show_controls(f"set aside: {', '.join(parts)}: {cause}"), err=True)
        if hint:
            click.echo(show_controls(f"  hint: {hint}"), err=True)


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
    # A line break in the name of a file would part its row.
    return show_controls(str(value)).replace("\n", "\\x0a").replace("\t", "\\x09")
