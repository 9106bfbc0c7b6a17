"""Import a plugin as a start of survey-ml does, and then what its specs name (in a child process)."""

from __future__ import annotations

import sys
import time
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from survey_ml.allowed import identify, normalise
from survey_ml.hookspecs import GROUP
from survey_ml.plugins import Fault, Registry, load_factory, load_plugins
from survey_ml.stage import Options, Stage, StageSpec

if TYPE_CHECKING:
    from survey_ml.conformance.child import Notes
    from survey_ml.specs import Spec

HEAVY = (
    "torch", "ray", "prefect", "zarr", "dask", "astropy", "scipy", "matplotlib",
    "numba", "pyarrow", "pandas", "sklearn", "openvino", "tensorflow", "jax",
)  # fmt: skip
"""Libraries that registering a plugin must not import: every command would wait for them."""
IMPORT_SECONDS = 0.25
"""CPU seconds that registering may take."""
_CHECKS: dict[str, tuple[tuple[Fault, ...], str]] = {
    "importable": (("import",), "the module of the entry point must import wherever survey-ml starts"),
    "hooks": (("hook",), "docs/plugins.md lists the hooks; mark each with @hookimpl"),
    "api": (("api",), "plugins/README.md says what the numbers promise"),
    "specs": (("spec", "clash"), "mend what the spec declares"),
}
"""Check to the faults that it is about, and its hint."""


def find_entries(distribution: str, plugins: dict[str, str]) -> list[EntryPoint]:
    """Return the entry points that are checked."""
    wanted = normalise(distribution)
    return [
        e
        for e in sorted(entry_points(group=GROUP), key=lambda e: e.name)
        if normalise(identify(e)[0]) == wanted and plugins.get(e.name) == e.value
    ]


def register(given: dict[str, Any], notes: Notes) -> None:
    """Load each plugin of a distribution; note its faults, its cost and what it announces."""
    load_plugins([])  # what survey_ml imports for itself is not the plugin's cost
    offers = []
    for entry in find_entries(given["distribution"], given["plugins"]):
        about = f"plugin {entry.name}"
        notes.doing(f"importing {entry.value}")
        before = set(sys.modules)
        start = time.process_time()
        registry = load_plugins([entry])
        cost = time.process_time() - start
        imported = set(sys.modules) - before
        _note_faults(about, registry, notes)
        heavy = sorted({name.partition(".")[0] for name in imported} & set(HEAVY))
        notes.check(
            about,
            "light_import",
            not heavy,
            f"imports {', '.join(heavy)}" if heavy else "imports nothing heavy",
            "import it in the module that `factory` names, which is loaded where it runs",
        )
        notes.check(
            about,
            "import_cost",
            cost <= IMPORT_SECONDS,
            f"{cost:.3f} s of CPU, at most {IMPORT_SECONDS:g} s",
            "python -X importtime shows what takes so long",
        )
        offers += [_describe(spec, entry.name) for spec, origin in registry.offers if not origin.builtin]
    notes.data("offers", offers)


def _note_faults(about: str, registry: Registry, notes: Notes) -> None:
    """Note one check a kind of fault; when nothing could be imported there is nothing else to judge."""
    lost = False
    for name, (kinds, hint) in _CHECKS.items():
        causes = [broken.cause for broken in registry.broken if broken.kind in kinds]
        passed = None if lost else not causes
        notes.check(about, name, passed, "; ".join(causes), hint)
        lost = lost or (name == "importable" and bool(causes))


def _describe(spec: Spec, plugin: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": type(spec).__name__.removesuffix("Spec").lower(),
        "name": spec.name,
        "factory": spec.factory,
        "plugin": plugin,
    }
    if isinstance(spec, StageSpec):
        needs = spec.resources
        found |= {"cpus": needs.cpus, "gpus": needs.gpus, "memory": needs.memory, "scope": spec.scope.value}
        found["arrays"] = [p.name for p in spec.writes if p.kind == "array"]
        found["reads"] = [p.name for p in spec.reads]
        found["writes"] = [p.name for p in spec.writes]
    return found


def import_factories(given: dict[str, Any], notes: Notes) -> None:
    """Import what one spec names, and look at a stage's class and options."""
    offer = given["offer"]
    about = f"{offer['kind']} {offer['name']}"
    notes.doing(f"importing {offer['factory']}")
    try:
        found = load_factory(offer["factory"])
    except BaseException as error:
        cause = str(error).splitlines()[0] or type(error).__name__
        notes.check(about, "factory", False, cause, "`factory` is package.module:Name")
        return
    if offer["kind"] != "stage":
        fits = callable(found)
        notes.check(about, "factory", fits, "" if fits else f"{offer['factory']} cannot be called")
        return
    if not (isinstance(found, type) and issubclass(found, Stage) and found.run is not Stage.run):
        detail = f"{offer['factory']} is not a subclass of survey_ml.stage.Stage with a `run`"
        notes.check(about, "factory", False, detail, "derive the class from Stage and define run(inputs)")
        return
    notes.check(about, "factory", True, offer["factory"])
    faults = list_option_faults(found.options_type)
    detail = "; ".join(faults) or ", ".join(found.options_type.model_fields) or "none"
    notes.check(about, "options", not faults, detail, "derive them from survey_ml.stage.Options")


def list_option_faults(kind: Any) -> list[str]:
    """Return what is wrong with a stage's options."""
    if not (isinstance(kind, type) and issubclass(kind, Options)):
        return [f"options_type is {kind!r}, not a subclass of survey_ml.stage.Options"]
    faults = []
    if not kind.model_config.get("frozen"):
        faults.append("they are not frozen")
    if kind.model_config.get("extra") != "forbid":
        faults.append("an unknown key is not an error (extra is not 'forbid')")
    bare = [name for name, field in kind.model_fields.items() if not (field.description or "").strip()]
    if bare:
        faults.append(f"no docstring below {', '.join(bare)}")
    return faults
