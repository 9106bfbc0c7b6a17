"""Imports keep to the layers of docs/architecture.md; nothing imports upward."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "survey_ml"
FILES = sorted(PACKAGE.rglob("*.py"))

CONTRACTS = {
    "collection",
    "compiled",
    "errors",
    "products",
    "field",
    "padding",
    "stage",
    "hookspecs",
    "config",
    "columns",
    "labelled",
    "morphology_flags",
    "uncertainty_flags",
    "zenithal",
}
DISCOVERY = {"allowed", "explain", "document", "specs", "plugins", "builtin", "graph", "loader", "describe"}
ROOMS = {
    "stages",
    "validation",
    "simulation",
    "learning",
    "papers",
    "models",
    "data",
    "engine",
    "conformance",
    "selftest",
    "export",
    "report",
    "cli",
}

RUN_MODELS = {("morphology", "stage.py"), ("uncertainty", "stage.py"), ("shift", "stage.py")}
"""Stages that run models; the science of others knows nothing of them."""

ALLOWED = {
    "contracts": CONTRACTS,
    "stages": CONTRACTS | {"stages"},
    "validation": CONTRACTS | {"validation"},
    "simulation": CONTRACTS | {"simulation"},
    "learning": CONTRACTS | {"learning"},
    "papers": CONTRACTS | {"data", "learning", "models", "papers"},
    "models": CONTRACTS | DISCOVERY | {"learning", "models"},
    "data": CONTRACTS | {"data", "simulation"},
    "engine": CONTRACTS | DISCOVERY | {"data", "engine", "export", "report"},
    "export": CONTRACTS | DISCOVERY | {"data", "validation", "export"},
    "report": CONTRACTS | DISCOVERY | {"data", "validation", "export", "report"},
    "conformance": CONTRACTS | DISCOVERY | {"simulation", "data", "engine", "conformance"},
    "selftest": CONTRACTS | DISCOVERY | {"simulation", "data", "selftest"},
    "cli": CONTRACTS | DISCOVERY | ROOMS,
    "measure": CONTRACTS | DISCOVERY,
    "__init__": {"data"},
}
"""Room to what it may import of survey_ml. The engine calls export and report at the end of a run."""

SPECS_ONLY = {"builtin": {"stages", "export", "report", "cli", "models"}}
"""The built-in plugin may import what announces things (``spec.py``), and nothing else, from rooms."""

LIBRARIES = {
    "zarr": {"data"},
    "fsspec": {"data"},
    "obstore": {"data"},
    "astropy.io": {"data", "export"},
    "astropy.table": {"data", "export", "report"},
    "pyarrow": {"data", "export", "report"},
    "dask": {"data", "report"},
    "prefect": {"engine"},
    "ray": {"engine"},
    "click": {"cli"},
    "rich": {"cli", "engine"},
    "pluggy": {"plugins", "hookspecs"},
    "yaml": {"document", "columns", "describe", "data", "report"},
    "matplotlib": {"report", "export", "papers"},
    "torch": {"learning", "models", "papers", "cli"},
    "sklearn": {"learning"},
    "jinja2": {"report"},
    "mocpy": {"export"},
    "regions": {"export"},
    "h5py": {"data"},
    "safetensors": {"models"},
    "openvino": {"models"},
    "PIL": {"data"},
}
"""Library to the rooms or modules that know it."""

NEVER = {"bdsf", "torchvision"}
"""Never imported by the package: licences, and what cannot be installed everywhere."""

SCIENCE = {"numpy", "scipy", "numba", "astropy", "pydantic"}
"""Third parties that science may use; of astropy only what is about the sky."""


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0] if len(parts) > 1 else parts[-1]


def is_typing(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield all that runs: modules imported, with ``from package import module`` spelt out."""

    def walk(node: ast.AST) -> Iterator[ast.stmt]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and is_typing(child.test):
                yield from walk(ast.Module(child.orelse, []))
                continue
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child
            yield from walk(child)

    for statement in walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield alias.name, statement.lineno
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{path}:{statement.lineno}: imports are absolute"
            assert statement.module
            for alias in statement.names:
                yield f"{statement.module}.{alias.name}", statement.lineno


def top_level_imports(path: Path) -> Iterator[tuple[str, int]]:
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Import):
            yield from ((alias.name, statement.lineno) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module, statement.lineno


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_layers(path):
    room = room_of(path)
    layer = "contracts" if room in CONTRACTS else room
    faults = []
    for module, line in imports(path):
        place = f"{path.relative_to(ROOT)}:{line}"
        if is_within(module, "survey_ml"):
            target = module.split(".")[1] if "." in module else "__version__"
            announced = target in SPECS_ONLY.get(room, ()) and ".spec." in module
            # A stage may read a file that its options name, in `setup`; never in its science.
            announced = announced or (room == "stages" and path.name == "stage.py" and target == "data")
            runs_models = path.parts[-2:] in RUN_MODELS and room == "stages"
            announced = announced or (runs_models and target in {"learning", "models"})
            if target not in ALLOWED.get(layer, CONTRACTS | DISCOVERY) | {"__version__"} and not announced:
                faults.append(f"{place}: {room} may not import {module}")
            continue
        for library, rooms in LIBRARIES.items():
            if is_within(module, library) and room not in rooms:
                faults.append(f"{place}: {room} may not know {library}; only {', '.join(sorted(rooms))} may")
        if module.split(".")[0] in NEVER:
            faults.append(f"{place}: {module} is never imported")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if room_of(p) in {"stages", "validation", "simulation", "learning"}],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_science_knows_arrays_and_nothing_else(path):
    import sys

    for module, line in imports(path):
        top = module.split(".")[0]
        known = SCIENCE | ({"torch", "sklearn"} if room_of(path) == "learning" else set())
        assert top in known | {"survey_ml"} | sys.stdlib_module_names, f"{path}:{line}: {module}"
        for banned in ("astropy.io", "astropy.table", "pathlib", "os", "urllib", "subprocess", "socket"):
            assert not is_within(module, banned) or path.name == "stage.py", f"{path}:{line}: {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 500
    assert path.stem not in {"utils", "misc", "helpers", "common", "deprecated"}


def test_every_room_is_known_to_this_test():
    found = {room_of(path) for path in FILES} - {"__init__"}
    assert found - CONTRACTS - DISCOVERY <= ROOMS | {"measure"}


def test_the_test_finds_what_it_is_for(tmp_path):
    bad = tmp_path / "x.py"
    bad.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ray\nelse:\n    import dask\n"
        "def f():\n    from survey_ml import engine\n"
    )
    names = [module for module, _ in imports(bad)]
    assert "survey_ml.engine" in names
    assert "dask" in names
    assert "ray" not in names
