"""Check that what a plugin announces keeps the contract."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from survey_ml.errors import SurveyMLError
from survey_ml.hookspecs import CommandSpec, ExporterSpec, ModelSpec, PanelSpec, ReaderSpec
from survey_ml.products import Kind, Product
from survey_ml.stage import API, Resources, Scope, StageSpec

Spec = StageSpec | ReaderSpec | ExporterSpec | PanelSpec | ModelSpec | CommandSpec

NAME = re.compile(r"[a-z][a-z0-9_]*")
HYPHENED_NAME = re.compile(r"[a-z][a-z0-9-]*")
FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]*\*?")
COLUMN_TYPE = re.compile(r"(float64|float32|int64|int32|bool|string)(\[([1-9]\d*|\*)\])?")
ARRAY_TYPE = re.compile(r"float32|float64|u?int(8|16|32|64)|bool")
TABLE_ROWS = ("source", "component", "island", "row")


def find_faults(spec: Spec, *, builtin: bool = False) -> Iterator[str]:
    """Yield what is wrong with a spec, one sentence each; nothing when it keeps the contract."""
    pattern, mark = (HYPHENED_NAME, "-") if isinstance(spec, CommandSpec | ModelSpec) else (NAME, "_")
    if not (isinstance(spec.name, str) and pattern.fullmatch(spec.name)):
        rule = f"must be lower-case letters, digits and {mark!r}, starting with a letter"
        yield f"the name {spec.name!r} {rule}"
    if not (isinstance(spec.factory, str) and FACTORY.fullmatch(spec.factory)):
        yield f"factory {spec.factory!r} must have the form 'package.module:Class'"
    yield from check_api(spec.api)
    if isinstance(spec, ReaderSpec) and not _is_suffixes(spec.suffixes):
        yield f"suffixes {spec.suffixes!r} must be a tuple of file name ends such as ('.fits',)"
    if isinstance(spec, StageSpec):
        yield from _check_stage(spec, builtin)


def check_api(api: Any) -> Iterator[str]:
    """Yield what is wrong with the version of the contract that a spec names."""
    if not (isinstance(api, tuple) and len(api) == 2 and all(isinstance(part, int) for part in api)):
        yield f"api {api!r} must be a pair of integers such as {API}"
        return
    have = ".".join(map(str, API))
    wants = ".".join(map(str, api))
    if api[0] != API[0]:
        which = "survey_ml" if api[0] > API[0] else "the plugin"
        yield f"it was written for version {wants} of the contract, this is {have}: update {which}"
    elif api[1] > API[1]:
        yield f"it needs version {wants} of the contract, this is {have}: update survey_ml"


def _is_suffixes(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(s, str) and s for s in value)


def _check_stage(spec: StageSpec, builtin: bool) -> Iterator[str]:
    products = (*spec.reads, *spec.writes)
    wrong = [product for product in products if not isinstance(product, Product)]
    if wrong:
        yield f"reads and writes must hold products, not {wrong[0]!r}"
        return
    if not isinstance(spec.scope, Scope):
        yield f"scope {spec.scope!r} must be one of {', '.join(f'Scope.{s.name}' for s in Scope)}"
    if spec.name == "ingest" and not builtin:
        yield "the name ingest is taken by survey_ml itself"
    if not spec.writes:
        yield "it writes no product"
    for name, count in Counter(p.name for p in spec.reads).items():
        if count > 1:
            yield f"it reads product {name} twice"
    for name, count in Counter(p.name for p in spec.writes).items():
        if count > 1:
            yield f"it writes product {name} twice"
    for name in sorted({p.name for p in spec.reads} & {p.name for p in spec.writes}):
        yield f"it both reads and writes product {name}; a stage writes under a name of its own"
    for product in products:
        yield from _check_product(product)
    for product in spec.writes:
        yield from _check_written(product, spec, builtin)
    yield from _check_resources(spec.resources)


def _check_product(product: Product) -> Iterator[str]:
    if not (isinstance(product.name, str) and NAME.fullmatch(product.name)):
        yield f"product name {product.name!r} must be lower-case letters, digits and '_'"
    if product.kind is Kind.ARRAY:
        if product.dims not in ((), ("y", "x")):
            yield f"array {product.name} has dims {product.dims}; arrays are over ('y', 'x')"
        if product.dtype and not ARRAY_TYPE.fullmatch(product.dtype):
            yield f"array {product.name} has the unknown dtype {product.dtype!r}"
    elif product.kind is Kind.TABLE:
        if product.dims and (len(product.dims) != 1 or product.dims[0] not in TABLE_ROWS):
            yield f"table {product.name} has dims {product.dims}; one of {', '.join(TABLE_ROWS)} is needed"
        for column in product.columns:
            if not COLUMN_NAME.fullmatch(column.name):
                yield f"column name {column.name!r} of {product.name} must be lower case"
            if not COLUMN_TYPE.fullmatch(column.dtype):
                yield f"column {column.name} of {product.name} has the unknown dtype {column.dtype!r}"
    elif product.kind is not Kind.SUMMARY:
        yield f"product {product.name} has the unknown kind {product.kind!r}"


def _check_written(product: Product, spec: StageSpec, builtin: bool) -> Iterator[str]:
    if product.kind is Kind.ARRAY:
        if spec.scope is not Scope.TILE:
            yield f"it writes array {product.name} at {spec.scope} scope; arrays are written at tile scope"
        if not product.dtype or not product.dims:
            yield f"the array {product.name} that it writes needs a dtype and dims"
    if product.optional:
        yield f"it writes {product.name} as optional; only a reader can do without"
    if product.kind is Kind.TABLE and not product.columns and not builtin:
        # Read only in this case: parsing the column table takes longer than loading a plugin.
        from survey_ml.columns import columns_of

        try:
            columns_of(product.name)
        except (KeyError, SurveyMLError):
            yield f"the table {product.name} that it writes declares no columns"
    names = Counter(column.name for column in product.columns)
    for name, count in names.items():
        if count > 1:
            yield f"table {product.name} declares column {name} twice"
    sources = product.kind is Kind.TABLE and product.dims == ("source",)
    if sources and product.columns and "source_id" not in names:
        yield f"table {product.name} is over sources and needs a source_id column (int64)"


def _check_resources(resources: Any) -> Iterator[str]:
    if not isinstance(resources, Resources):
        yield f"resources {resources!r} must be a Resources object"
    elif resources.cpus < 0 or resources.gpus < 0 or resources.memory <= 0:
        yield f"resources must be positive, not {resources}"
