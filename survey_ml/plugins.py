"""Find plugins, keep the broken ones apart, and answer who provides what."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Literal, TypeVar, cast

import pluggy

from survey_ml import __version__, builtin, hookspecs
from survey_ml.allowed import ONLY, NotAllowed, identify, release_list, select, split_names
from survey_ml.allowed import normalise as _normal
from survey_ml.errors import ConfigError, PluginError
from survey_ml.explain import suggest
from survey_ml.hookspecs import (
    GROUP,
    PROJECT,
    CommandSpec,
    ExporterSpec,
    ModelSpec,
    PanelSpec,
    ReaderSpec,
)
from survey_ml.specs import Spec, check_api, find_faults
from survey_ml.stage import StageSpec

BUILTINS: tuple[ModuleType, ...] = (builtin,)
STRICT = "SURVEY_ML_STRICT"
"""Set to 1, a broken plugin is an error instead of an entry in a list."""

_HOOKS: dict[str, type[Spec]] = {
    "survey_ml_stages": StageSpec,
    "survey_ml_readers": ReaderSpec,
    "survey_ml_exporters": ExporterSpec,
    "survey_ml_report_panels": PanelSpec,
    "survey_ml_models": ModelSpec,
    "survey_ml_commands": CommandSpec,
}

Fault = Literal["absent", "import", "hook", "api", "spec", "clash"]
"""What part of the contract something broken breaks."""

SpecT = TypeVar("SpecT", StageSpec, ReaderSpec, ExporterSpec, PanelSpec, ModelSpec, CommandSpec)


@dataclass(frozen=True, order=True)
class Origin:
    """Where a spec comes from: the plugin's entry point and its distribution."""

    distribution: str
    version: str
    plugin: str
    builtin: bool = False


@dataclass(frozen=True)
class Broken:
    """A plugin, or one thing it announces, that cannot be used, and why."""

    name: str
    distribution: str
    version: str
    cause: str
    trace: str = ""
    kind: Fault = "spec"


@dataclass
class Registry:
    """All that is provided, with its origin; the same whatever order plugins load in."""

    offers: list[tuple[Spec, Origin]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    """Every plugin that loaded, the built-in one first."""
    not_allowed: list[NotAllowed] = field(default_factory=list)
    """Plugins that are installed and were not imported, because a list leaves them out."""

    def stages(self, providers: Mapping[str, str] | None = None) -> list[StageSpec]:
        """Return one spec a stage name, sorted; names that two distributions contend for are left out.

        `stage` says what to do about such a name, when somebody asks for it.
        """
        picks = providers or {}
        found = []
        for name in sorted({spec.name for spec, _ in self._of(StageSpec)}):
            chosen = self._pick(name, picks)
            if len(chosen) == 1:
                found.append(chosen[0][0])
        return found

    def stage(self, name: str, providers: Mapping[str, str] | None = None) -> StageSpec:
        """Return the stage called ``name``.

        Raises
        ------
        ConfigError
            When there is none, when two distributions provide it and ``providers`` picks neither,
            or when the pick does not provide it.
        """
        picks = providers or {}
        offers = self.offers_of(name)
        if not offers:
            names = sorted({spec.name for spec, _ in self._of(StageSpec)} - {"ingest"})
            # One that fails to import, or misspells its hook, cannot say which stages it has.
            lost = [b for b in self.broken if b.name == name or f"stage {name}" in _subjects(b.cause)]
            causes = _describe_broken(lost or self.broken)
            causes += [f"plugin {n.distribution} is {n.cause}" for n in self.not_allowed]
            cause = "".join(f"; {one}" for one in causes)
            raise ConfigError(
                f"there is no stage {name}{suggest(name, names)}{cause}",
                f"stages: {', '.join(names)}; `survey-ml plugins` lists where they come from",
            )
        chosen = self._pick(name, picks)
        both = " and ".join(f"{o.distribution} {o.version}" for _, o in offers)
        line = f"providers: {{{name}: {offers[-1][1].distribution}}}"
        if not chosen:
            raise ConfigError(
                f"providers picks {picks[name]} for stage {name}, but it is provided by {both}",
                f"write {line} in the release YAML",
            )
        if len(chosen) > 1:
            raise ConfigError(f"stage {name} is provided by {both}", f"pick one in the release YAML: {line}")
        return chosen[0][0]

    def offers_of(self, name: str) -> list[tuple[StageSpec, Origin]]:
        """Return all that provide a stage of this name, the built-in one first."""
        return [(spec, origin) for spec, origin in self._of(StageSpec) if spec.name == name]

    def readers(self) -> list[ReaderSpec]:
        """Return the input formats."""
        return [spec for spec, _ in self._of(ReaderSpec)]

    def exporters(self) -> list[ExporterSpec]:
        """Return the output formats."""
        return [spec for spec, _ in self._of(ExporterSpec)]

    def panels(self) -> list[PanelSpec]:
        """Return the sections of the report in their order."""
        return sorted((spec for spec, _ in self._of(PanelSpec)), key=lambda spec: (spec.order, spec.name))

    def models(self) -> list[ModelSpec]:
        """Return the trained models, by name."""
        return [spec for spec, _ in self._of(ModelSpec)]

    def commands(self) -> list[CommandSpec]:
        """Return the commands of third parties."""
        return [spec for spec, _ in self._of(CommandSpec)]

    def origin_of(self, spec: Spec) -> Origin:
        """Return the plugin that announced a spec."""
        for offered, origin in self.offers:
            if offered is spec or offered == spec:
                return origin
        raise KeyError(spec.name)

    def distribution_of(self, spec: Spec) -> str:
        """Return the name of the distribution that announced a spec."""
        return self.origin_of(spec).distribution

    def _of(self, kind: type[SpecT]) -> list[tuple[SpecT, Origin]]:
        return [(spec, origin) for spec, origin in self.offers if isinstance(spec, kind)]

    def _pick(self, name: str, picks: Mapping[str, str]) -> list[tuple[StageSpec, Origin]]:
        offers = self.offers_of(name)
        if name not in picks:
            return offers
        wanted = _normal(picks[name])
        return [(spec, origin) for spec, origin in offers if _normal(origin.distribution) == wanted]


def get_manager() -> Registry:
    """Return what is installed, looked up once a process.

    Raises
    ------
    PluginError
        When a plugin is broken and ``SURVEY_ML_STRICT=1``.
    """
    return _find(is_strict(), os.environ.get(ONLY), release_list(), tuple(sys.path))


def is_strict() -> bool:
    """Say whether a broken plugin is an error, as ``SURVEY_ML_STRICT=1`` asks for."""
    return os.environ.get(STRICT, "") not in ("", "0")


def has_third_parties() -> bool:
    """Say whether any plugin is installed and allowed, without loading one."""
    found = entry_points(group=GROUP)
    return bool(select(found, split_names(os.environ.get(ONLY)), release_list()).chosen)


@lru_cache(maxsize=4)
def _find(strict: bool, only: str | None, allow: tuple[str, ...] | None, path: tuple[str, ...]) -> Registry:
    return load_plugins(entry_points(group=GROUP), only=only, allow=allow, strict=strict)


def load_plugins(
    found: Iterable[EntryPoint],
    *,
    only: str | None = None,
    allow: Sequence[str] | None = None,
    strict: bool = False,
) -> Registry:
    """Load the built-in and the given plugins and check what they announce.

    Parameters
    ----------
    found : iterable of EntryPoint
        Entry points of third parties, in any order.
    only : str, optional
        Comma-separated names to load, as an operator gives them; None loads all.
    allow : sequence of str, optional
        Names that a release allows; None allows all. A plugin must be in both.
    strict : bool
        Raise when anything is broken.

    Returns
    -------
    Registry
        What can be used, and what is broken.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    registry = Registry()
    origins: dict[str, Origin] = {}
    for module in BUILTINS:
        name = manager.register(module)
        assert name is not None
        origins[name] = Origin("survey-ml", __version__, module.__name__.rpartition(".")[2], True)
    selection = select(found, split_names(only), allow)
    registry.not_allowed = list(selection.not_allowed)
    registry.broken += [
        Broken(name, "", "", f"named in {where} but not installed", kind="absent")
        for name, where in selection.missing
    ]
    for entry in selection.chosen:
        origin = Origin(*identify(entry))
        name = f"{origin.distribution}:{origin.plugin}"
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a print must not spoil --json
                plugin = entry.load()
                manager.register(plugin, name=name)
                faults = list(_check_hooks(manager, plugin))
            origins[name] = origin
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if manager.has_plugin(name):
                manager.unregister(name=name)
            kind: Fault = "hook" if isinstance(error, pluggy.PluginValidationError) else "import"
            registry.broken.append(_broken(origin, error, kind))
            continue
        registry.broken += [
            Broken(origin.plugin, origin.distribution, origin.version, fault, kind="hook") for fault in faults
        ]
    registry.origins = list(origins.values())
    _collect(manager, origins, registry)
    _drop_clashes(registry)
    registry.broken = _merge_versions(registry.broken)
    registry.offers.sort(key=lambda offer: (offer[0].name, not offer[1].builtin, offer[1]))
    registry.broken.sort(key=lambda broken: (broken.distribution, broken.name, broken.cause))
    if strict and registry.broken:
        raise PluginError(
            "; ".join(f"plugin {b.name} of {b.distribution}: {b.cause}" for b in registry.broken),
            f"mend or uninstall it, or unset {STRICT} to go on without it",
        )
    return registry


def load_factory(path: str, origin: str = "") -> Any:
    """Import what a spec's ``factory`` names.

    Raises
    ------
    PluginError
        When the module cannot be imported or lacks the name; ``origin`` says whose it is.
    """
    module, _, name = path.partition(":")
    whose = f" of {origin}" if origin else ""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise PluginError(
            f"{path}{whose} cannot be imported: {type(error).__name__}: {error}",
            "the plugin is broken, or something it needs is not installed",
        ) from error
    return found


def _broken(origin: Origin, error: BaseException, kind: Fault, what: str = "") -> Broken:
    cause = f"{what}{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    trace = "".join(traceback.format_list(frames)) + "".join(traceback.format_exception_only(error))
    return Broken(origin.plugin, origin.distribution, origin.version, cause, trace, kind)


def _check_hooks(manager: pluggy.PluginManager, plugin: Any) -> Iterator[str]:
    """Yield misspelt and unmarked hooks, and say so when a plugin has none at all."""
    hooks = manager.get_hookcallers(plugin) or []
    for hook in hooks:
        if not hook.has_spec():
            yield f"unknown hook {hook.name}{suggest(hook.name, _HOOKS)}"
    marked = {hook.name for hook in hooks}
    for name, _ in inspect.getmembers(plugin, callable):
        if name.startswith("survey_ml_") and name not in marked:
            yield f"{name} is not marked with @hookimpl{suggest(name, set(_HOOKS) - {name})}"
    if not marked & _HOOKS.keys():
        yield "it has no function marked with @hookimpl, so it adds nothing"


def _collect(manager: pluggy.PluginManager, origins: Mapping[str, Origin], registry: Registry) -> None:
    """Call every hook of every plugin by itself, so that one that fails spoils no other."""
    for hook, kind in _HOOKS.items():
        for impl in getattr(manager.hook, hook).get_hookimpls():
            origin = origins[impl.plugin_name]
            try:
                if impl.wrapper or impl.hookwrapper:
                    raise TypeError("a wrapper around the hooks of others is not allowed")
                with contextlib.redirect_stdout(sys.stderr):
                    given = impl.function()
                if not isinstance(given, list | tuple):
                    raise TypeError(f"it must return a list of {kind.__name__}, not {type(given).__name__}")
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                registry.broken.append(_broken(origin, error, "hook", f"{hook}: "))
                continue
            spec: Any
            for spec in given:
                faults = _list_faults(spec, kind, origin)
                if faults:
                    name = getattr(spec, "name", "?") if isinstance(spec, kind) else "?"
                    cause = f"{_word(kind)} {name}: " + "; ".join(faults)
                    broken = Broken(
                        origin.plugin, origin.distribution, origin.version, cause, "", _kind(spec)
                    )
                    registry.broken.append(broken)
                else:
                    registry.offers.append((spec, origin))


def _list_faults(spec: Any, kind: type[Any], origin: Origin) -> list[str]:
    """Return what is wrong with a spec; one that cannot even be looked at is wrong."""
    if not isinstance(spec, kind):
        return [f"it must return a list of {kind.__name__}, with a {type(spec).__name__} in it"]
    try:
        return list(find_faults(cast("Spec", spec), builtin=origin.builtin))
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        return [f"it cannot be read ({cause}); reads and writes are tuples of products"]


def _kind(spec: Any) -> Fault:
    """Say what part of the contract a faulty spec breaks: its version is looked at first."""
    return "api" if isinstance(spec, Spec) and any(check_api(spec.api)) else "spec"


def _subjects(cause: str) -> list[str]:
    """Return what a cause is about, such as ``stage a`` and ``stage b`` of ``stage a, stage b: ...``."""
    return cause.partition(": ")[0].split(", ")


def _describe_broken(broken: Sequence[Broken]) -> list[str]:
    """Return a sentence for each distribution, with all that is wrong with it."""
    causes: dict[str, list[str]] = {}
    for one in broken:
        if one.kind == "absent":
            causes[f"plugin {one.name} is {one.cause}"] = []
        else:
            causes.setdefault(f"plugin {one.distribution} is broken: ", []).append(one.cause)
    return [head + ", and ".join(parts) for head, parts in causes.items()]


def _merge_versions(broken: Sequence[Broken]) -> list[Broken]:
    """Make one of the specs of a plugin that were all written for the same other version."""
    merged: list[Broken] = []
    places: dict[tuple[str, str, str], int] = {}
    for one in broken:
        about, _, fault = one.cause.partition(": ")
        key = (one.distribution, one.name, fault)
        if one.kind == "api" and key in places:
            first = merged[places[key]]
            cause = f"{first.cause.partition(': ')[0]}, {about}: {fault}"
            merged[places[key]] = replace(first, cause=cause)
            continue
        if one.kind == "api":
            places[key] = len(merged)
        merged.append(one)
    return merged


def _word(kind: type) -> str:
    return kind.__name__.removesuffix("Spec").lower()


def _drop_clashes(registry: Registry) -> None:
    """Drop what cannot be told apart: a name twice in a plugin, or, but for stages, in two."""
    groups: dict[tuple[type, str], list[tuple[Spec, Origin]]] = {}
    for spec, origin in registry.offers:
        groups.setdefault((type(spec), spec.name), []).append((spec, origin))
    for (kind, name), offers in groups.items():
        for spec, origin in offers:
            same = [o for _, o in offers if o.distribution == origin.distribution]
            if kind is StageSpec and len(same) == 1:
                continue  # the configuration may pick one
            others = sorted({o.distribution for _, o in offers if o != origin}) or [origin.distribution]
            if len(offers) > 1 and not origin.builtin:
                cause = f"{_word(kind)} {name}: also provided by {', '.join(others)}"
                broken = Broken(origin.plugin, origin.distribution, origin.version, cause, kind="clash")
                registry.broken.append(broken)
                registry.offers = [offer for offer in registry.offers if offer[0] is not spec]
