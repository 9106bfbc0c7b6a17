"""What a stage is: frozen options, declared products, resources, and a pure ``run``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict

from survey_ml.field import Field, Tile
from survey_ml.products import Product

if TYPE_CHECKING:  # half of the start-up time of a command that only lists plugins
    import numpy as np
    from numpy.typing import NDArray

API = (1, 0)
"""Version of this contract: the first number changes when old plugins stop working."""

Table: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Rows as a mapping of column name to array, all of one length; vectors are ``(n, d)``."""


class Scope(StrEnum):
    """What one call of ``run`` works on."""

    TILE = "tile"
    """One tile: arrays are its window (core plus halo), tables the tile's own rows."""
    SOURCE = "source"
    """The rows of one tile: tables are the tile's, arrays are lazy over the whole field."""
    FIELD = "field"
    """One field: arrays are lazy, tables hold the rows of all its tiles."""
    RELEASE = "release"
    """All fields: arrays and summaries are mappings by field, tables hold all rows."""


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage needs: CPU cores, GPU fraction, bytes of memory."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 1 << 30


class Options(BaseModel):
    """Base of all stage options: frozen, and an unknown key is an error.

    The docstring under an attribute becomes its help, its comment in the YAML and its entry in
    the documentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def files(self) -> Mapping[str, Path]:
        """Return the files that results depend on and no value of these options is the path of.

        Returns
        -------
        mapping
            Label to path. What the file holds is part of the key of every output, under the label:
            another content makes outputs stale, the same content in another place does not. A path
            that is also the value of an option counts by its label alone. Label what has a name,
            such as a model that comes with a package, by that name.
        """
        return {}


def list_files(options: Options) -> Mapping[str, Path]:
    """Return what `Options.files` tells; nothing where a plugin has an option of that name instead."""
    return options.files() if callable(options.files) else {}


@dataclass(frozen=True)
class StageSpec:
    """A stage as a plugin announces it: light, with import paths instead of classes.

    Parameters
    ----------
    name : str
        Name in the YAML and on disk: lower case letters, digits and ``_``.
    factory : str
        ``package.module:Class`` of the `Stage`.
    reads, writes : tuple of Product
        The graph follows from these. Arrays read and written have the field's shape.
    scope : Scope
        What one call of ``run`` works on.
    resources : Resources
        What one worker needs.
    version : str
        Change it when the same inputs and options give other numbers: outputs are redone.
    api : tuple of int
        The contract version the stage was written for.
    summary : str
        One line for ``survey-ml plugins``.
    """

    name: str
    factory: str
    reads: tuple[Product, ...] = ()
    writes: tuple[Product, ...] = ()
    scope: Scope = Scope.TILE
    resources: Resources = dataclasses.field(default_factory=Resources)
    version: str = "1"
    api: tuple[int, int] = API
    summary: str = ""


class LazyArray(Protocol):
    """A stored array that reads only what is indexed: ``array[y0:y1, x0:x1]``."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102
    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Inputs:
    """What ``run`` gets; nothing in it may be changed.

    Attributes
    ----------
    field : Field or None
        The field; None at release scope, where `fields` has them all.
    tile : Tile or None
        The tile at tile and source scope. ``tile.core.inside(tile.window)`` indexes the core.
    arrays : mapping
        Product name to array; see `Scope` for what it covers. NaN where there is no data.
    tables, summaries : mapping
        Product name to table or JSON object. A missing optional product is absent.
    fields : mapping
        Field name to `Field`.
    seed : int
        For all random steps; the same for the same unit in every run.
    """

    field: Field | None
    tile: Tile | None = None
    arrays: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, Table] = dataclasses.field(default_factory=dict)
    summaries: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    seed: int = 0


class Stage:
    """Base class of all stages.

    A stage has no state but its options and what `setup` loads. `run` reads nothing but its
    inputs and writes nothing but its return value, so that it gives the same answer on any
    worker, in any order, however often it is called.
    """

    options_type: ClassVar[type[Options]] = Options
    """The stage's own options; the engine builds them from the configuration."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def halo(self, field: Field) -> int:
        """Return the least halo in pixels that this stage needs for exact results."""
        return 0

    def setup(self) -> None:
        """Load models and the like; called once a worker, before the first `run`."""

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Compute the declared products.

        Parameters
        ----------
        inputs : Inputs
            What the spec declared under ``reads``.

        Returns
        -------
        mapping
            Product name to value: an array of the core's shape at tile scope, a `Table`, or a
            JSON object. Exactly the products under ``writes``.

        Raises
        ------
        WindowTooSmallError
            To be called again with a larger window (tile scope).
        InputError
            When the data cannot be processed; the tile is set aside with the reason.
        """
        raise NotImplementedError
