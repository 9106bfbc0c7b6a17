"""The order of stages, from what they read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from survey_ml.allowed import allowing
from survey_ml.config import LoadedConfig
from survey_ml.errors import ConfigError, GraphError, PluginError, SurveyMLError
from survey_ml.explain import Path as KeyPath
from survey_ml.explain import explain
from survey_ml.plugins import Registry, get_manager, load_factory
from survey_ml.products import Product
from survey_ml.stage import Options, Stage, StageSpec, list_files

INGEST = "ingest"
"""The unit of work that writes ``image``; always first."""


@dataclass(frozen=True)
class Graph:
    """Stages in an order in which every product is written before it is read.

    Attributes
    ----------
    order : tuple of StageSpec
        `ingest` first. Among stages that could run next, the first by name runs first.
    options : mapping
        Checked options by stage name (`ingest` has none).
    edges : mapping
        ``(reader, product)`` to the stage that writes it; an optional product that nobody
        writes is not in it.
    """

    order: tuple[StageSpec, ...]
    options: Mapping[str, Options]
    edges: Mapping[tuple[str, str], str]

    @classmethod
    def build(
        cls,
        wanted: Mapping[str, Mapping[str, Any]],
        registry: Registry,
        providers: Mapping[str, str] | None = None,
        *,
        locate: Callable[[KeyPath], str] = lambda path: "",
        base: Path | None = None,
    ) -> Graph:
        """Order the wanted stages and those whose products they need.

        Parameters
        ----------
        wanted : mapping
            Stage name to options as given.
        registry : Registry
            What is installed.
        providers : mapping
            Stage name to distribution, where two provide it.
        locate : callable
            Gives ``file:line`` of a path in the release YAML, for error messages.
        base : Path
            Folder that options of type ``Path`` are relative to; left as they are when None.

        Raises
        ------
        ConfigError
            For an unknown stage, an unprovided pick or wrong options.
        GraphError
            For a missing or ambiguous producer, a clash, a type mismatch or a cycle.
        PluginError
            When the class of a stage cannot be imported.
        """
        specs = _close(wanted, registry, providers or {})
        writers = _find_writers(specs)
        edges = {
            (spec.name, product.name): writers[product.name].name
            for spec in specs.values()
            for product in spec.reads
            if product.name in writers
        }
        for spec in specs.values():
            for product in spec.reads:
                if product.name in writers:
                    _check_match(spec, product, writers[product.name])
        order = _sort(specs, edges)
        options = {
            spec.name: _check_options(spec, wanted.get(spec.name) or {}, registry, locate, base)
            for spec in order
            if spec.name != INGEST
        }
        return cls(tuple(order), options, edges)

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """The order without `ingest`."""
        return tuple(spec for spec in self.order if spec.name != INGEST)

    def spec(self, name: str) -> StageSpec:
        """Return the stage called ``name``."""
        return next(spec for spec in self.order if spec.name == name)

    def reads(self, name: str) -> dict[str, str]:
        """Return what a stage reads here: product name to the stage that writes it."""
        return {product: writer for (reader, product), writer in self.edges.items() if reader == name}

    def writer(self, product: str) -> StageSpec | None:
        """Return the stage that writes a product, or None."""
        return next((s for s in self.order for p in s.writes if p.name == product), None)

    def needs(self, name: str) -> set[str]:
        """Return the stages that must have run before ``name``, near and far."""
        found: set[str] = set()
        todo = [name]
        while todo:
            for writer in self.reads(todo.pop()).values():
                if writer not in found:
                    found.add(writer)
                    todo.append(writer)
        return found

    def to_text(self) -> str:
        """Write one line a stage: its name, scope, what it reads (and from whom) and writes."""
        width = max(len(spec.name) for spec in self.order)
        lines = []
        for spec in self.order:
            read: dict[str, list[str]] = {}
            for product, writer in self.reads(spec.name).items():
                read.setdefault(writer, []).append(product)
            reads = "; ".join(f"{', '.join(p)} <- {writer}" for writer, p in read.items()) or "input images"
            writes = ", ".join(product.name for product in spec.writes)
            lines.append(f"{spec.name:<{width}}  [{spec.scope}]  {reads}")
            lines.append(f"{'':<{width}}  -> {writes}")
        return "\n".join(lines)

    def to_mermaid(self) -> str:
        """Write the graph for Mermaid, with the products on its arrows."""
        lines = ["graph LR", "    inputs([input images])", *(f"    {spec.name}" for spec in self.order)]
        lines.append(f"    inputs --> {INGEST}")
        arrows: dict[tuple[str, str], list[str]] = {}
        for (reader, product), writer in self.edges.items():
            arrows.setdefault((writer, reader), []).append(product)
        position = {spec.name: i for i, spec in enumerate(self.order)}
        for writer, reader in sorted(arrows, key=lambda pair: (position[pair[0]], position[pair[1]])):
            lines.append(f"    {writer} -->|{', '.join(arrows[writer, reader])}| {reader}")
        return "\n".join(lines)


def build_graph(config: LoadedConfig, registry: Registry | None = None) -> Graph:
    """Build the graph of a loaded configuration; see `Graph.build`."""
    from survey_ml.loader import find_places

    if registry is None:
        with allowing(config.release.plugins.allow):
            registry = get_manager()
    locate = find_places(config.source, config.settings)
    return Graph.build(
        config.release.stages,
        registry,
        config.release.providers,
        locate=lambda path: locate(("stages", *path)),
        base=config.base,
    )


def _close(
    wanted: Mapping[str, Any], registry: Registry, providers: Mapping[str, str]
) -> dict[str, StageSpec]:
    """Return the wanted stages and, by what they read, all that they need."""
    specs = {name: registry.stage(name, providers) for name in [INGEST, *sorted(wanted)]}
    contended = {
        spec.name: spec
        for name in {spec.name for spec, _ in registry.offers if isinstance(spec, StageSpec)}
        for spec, _ in registry.offers_of(name)
    }
    todo = sorted(specs)
    while todo:
        reader = specs[todo.pop(0)]
        for product in reader.reads:
            if product.optional or any(p.name == product.name for s in specs.values() for p in s.writes):
                continue
            able = sorted(n for n, s in contended.items() if any(p.name == product.name for p in s.writes))
            if not able:
                broken = ", ".join(sorted({b.distribution for b in registry.broken if b.distribution}))
                raise GraphError(
                    f"stage {reader.name} reads product {product.name}, which no stage writes",
                    "install the plugin that writes it"
                    + (f"; these plugins are broken and may be meant: {broken}" if broken else ""),
                )
            if len(able) > 1:
                raise GraphError(
                    f"stage {reader.name} reads product {product.name}, written by {' and '.join(able)}",
                    f"name one of them under stages in the release YAML, such as `{able[0]}: {{}}`",
                )
            specs[able[0]] = registry.stage(able[0], providers)
            todo.append(able[0])
    return specs


def _find_writers(specs: Mapping[str, StageSpec]) -> dict[str, StageSpec]:
    """Map each product to the one stage that writes it."""
    writers: dict[str, StageSpec] = {}
    for name in sorted(specs):
        for product in specs[name].writes:
            if product.name in writers:
                first = writers[product.name].name
                raise GraphError(
                    f"stages {first} and {name} both write product {product.name}",
                    f"take {first} or {name} out of stages in the release YAML",
                )
            writers[product.name] = specs[name]
    return writers


def _check_match(reader: StageSpec, read: Product, writer: StageSpec) -> None:
    """Compare the two declarations of a product; what either leaves empty is not compared."""
    written = next(product for product in writer.writes if product.name == read.name)
    for what in ("kind", "dtype", "dims"):
        theirs, ours = getattr(written, what), getattr(read, what)
        if theirs and ours and theirs != ours:
            raise GraphError(
                f"stage {reader.name} reads {read.name} with {what} {_show(ours)}, "
                f"but stage {writer.name} writes it with {what} {_show(theirs)}",
                f"declare it in {reader.name} as {writer.name} does",
            )


def _show(value: Any) -> str:
    return f"({', '.join(value)})" if isinstance(value, tuple) else str(value)


def _sort(specs: Mapping[str, StageSpec], edges: Mapping[tuple[str, str], str]) -> list[StageSpec]:
    """Put writers before readers, the first by name first (Kahn's algorithm)."""
    before = {name: {w for (r, _), w in edges.items() if r == name} for name in specs}
    # Ingest sorts below every name, so that it is first even beside a stage that reads nothing.
    ready = [("" if name == INGEST else name) for name, needs in before.items() if not needs]
    heapify(ready)
    order: list[StageSpec] = []
    done: set[str] = set()
    while ready:
        name = heappop(ready) or INGEST
        order.append(specs[name])
        done.add(name)
        for other, needs in before.items():
            if name in needs:
                needs.discard(name)
                if not needs:
                    heappush(ready, other)
    if len(order) < len(specs):
        raise _name_cycle({name: needs for name, needs in before.items() if name not in done}, edges)
    return order


def _name_cycle(stuck: Mapping[str, set[str]], edges: Mapping[tuple[str, str], str]) -> GraphError:
    """Walk back from a stage that cannot run until one comes up again."""
    path = [min(stuck)]
    while True:
        name = min(need for need in stuck[path[-1]] if need in stuck)
        if name in path:
            cycle = [*path[path.index(name) :], name]
            break
        path.append(name)
    links = []
    for reader, writer in pairwise(cycle):
        product = min(p for (r, p), w in edges.items() if r == reader and w == writer)
        links.append(f"{reader} reads {product} of {writer}")
    return GraphError(
        f"stages wait for each other: {', '.join(links)}",
        f"take one of {', '.join(sorted(set(cycle)))} out of stages in the release YAML",
    )


def _check_options(
    spec: StageSpec,
    given: Mapping[str, Any],
    registry: Registry,
    locate: Callable[[KeyPath], str],
    base: Path | None,
) -> Options:
    """Build the options of a stage from what the configuration gives."""
    origin = registry.origin_of(spec)
    kind = load_factory(spec.factory, f"stage {spec.name} of {origin.distribution} {origin.version}")
    if not (isinstance(kind, type) and issubclass(kind, Stage)):
        raise PluginError(
            f"{spec.factory} of {origin.distribution} {origin.version} is not a Stage",
            "derive the class from survey_ml.stage.Stage",
            stage=spec.name,
        )
    try:
        options = kind.options_type.model_validate(dict(given))
    except ValidationError as error:
        raise explain(
            error,
            kind.options_type,
            given,
            locate=lambda path: locate((spec.name, *path)),
            stage=spec.name,
        ) from None
    if base is not None:
        options = resolve_paths(options, base)
    _check_files(spec, options)
    return options


def resolve_paths(options: Options, base: Path) -> Options:
    """Return options with their paths relative to a folder; full ones stay."""
    paths = {name: base / value for name, value in options if isinstance(value, Path)}
    return options.model_copy(update=paths)


def _check_files(spec: StageSpec, options: Options) -> None:
    """Say before any work that a file that a stage depends on is not there."""
    try:
        lost = [
            f"{label} ({path})" for label, path in list_files(options).items() if not Path(path).is_file()
        ]
    except SurveyMLError:
        raise
    except Exception as error:  # of a plugin
        raise PluginError(
            f"the options of stage {spec.name} cannot tell their files: {type(error).__name__}: {error}",
            "files() returns a mapping of label to path",
            stage=spec.name,
        ) from error
    if lost:
        raise ConfigError(
            f"stage {spec.name} needs {', '.join(lost)}, which is not there",
            "correct the path, or install what brings the file",
            stage=spec.name,
        )
