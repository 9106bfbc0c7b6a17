"""Which units of work are done, and which are not and why: derived from commits alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from survey_ml.data.commit import Unit
from survey_ml.engine.keys import (
    describe_field,
    describe_ingest,
    describe_stage,
    explain_change,
    hash_json,
    unit_key,
)
from survey_ml.engine.work import FIELD_TILE, RELEASE, RELEASE_TILE, Job
from survey_ml.errors import SetAside
from survey_ml.field import Tile, Window, split_tiles
from survey_ml.graph import INGEST, Graph
from survey_ml.products import Kind
from survey_ml.stage import Scope, StageSpec

if TYPE_CHECKING:
    from survey_ml.config import Tiling
    from survey_ml.data.inputs import Source
    from survey_ml.engine.ledger import Ledger

State = Literal["done", "todo", "stale", "quarantined", "waiting", "aside"]
STATES: tuple[State, ...] = ("done", "todo", "stale", "quarantined", "waiting", "aside")
_BLOCKED = ("quarantined", "waiting", "aside")


@dataclass(frozen=True, slots=True)
class UnitState:
    """One unit of work: what it is, its key, and how it stands.

    ``state`` is ``done``; ``todo`` (never done, or damaged); ``stale`` (done, but made by something
    else: the reason says what changed); ``quarantined`` (killed its worker again and again);
    ``aside`` (its field or the unit itself cannot be processed); ``waiting`` (needs one of these).
    """

    unit: Unit
    key: str
    state: State
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Plan:
    """All units of a release, stage by stage in the order in which they run.

    Attributes
    ----------
    units : tuple of UnitState
        In the order of work.
    made_by : mapping
        ``(field, stage)`` to what makes its outputs.
    set_aside : tuple of SetAside
        Fields that cannot be processed, with the reason.
    """

    units: tuple[UnitState, ...]
    made_by: Mapping[tuple[str, str], Mapping[str, Any]]
    set_aside: tuple[SetAside, ...] = ()

    def __iter__(self) -> Iterator[UnitState]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    @property
    def counts(self) -> dict[str, int]:
        """Number of units by state, every state in it."""
        found = Counter(unit.state for unit in self.units)
        return {state: found.get(state, 0) for state in STATES}

    def by_stage(self) -> dict[str, list[UnitState]]:
        """Return the units of each stage, in the order of work."""
        stages: dict[str, list[UnitState]] = {}
        for unit in self.units:
            stages.setdefault(unit.unit.stage, []).append(unit)
        return stages

    def jobs(self, stage: str) -> list[Job]:
        """Return what is to do at one stage."""
        return [
            Job(u.unit, u.key, self.made_by[u.unit.field, stage])
            for u in self.units
            if u.unit.stage == stage and u.state in ("todo", "stale")
        ]


@dataclass
class _Reader:
    """How a stage looks at those it reads."""

    spec: StageSpec
    sources: dict[str, tuple[Scope, bool]] = field(default_factory=dict)
    """Stage read to its scope, and whether only tables and summaries of it are read."""


def make_plan(
    graph: Graph,
    sources: Sequence[Source],
    ledger: Ledger,
    tiling: Tiling,
    *,
    seed: int = 0,
    hash_of: Callable[[Source], str],
    set_aside: Sequence[SetAside] = (),
    failed: Mapping[Unit, tuple[str, str]] | None = None,
    stages: set[str] | None = None,
) -> Plan:
    """Compare what the configuration asks for with what the commits say.

    Parameters
    ----------
    graph : Graph
        Stages in order, with their options.
    sources : sequence of Source
        Fields whose headers are good.
    ledger : Ledger
        What is on disk.
    tiling : Tiling
        Core and halo.
    seed : int
        Of the release.
    hash_of : callable
        SHA-256 of a source's file; called only for fields that have commits when that is enough.
    set_aside : sequence of SetAside
        Fields that were found bad before.
    failed : mapping
        Units that failed in this run, with cause and hint; they are not planned again.
    stages : set of str
        Plan only these; all when not given.

    Returns
    -------
    Plan
        Pure: the same arguments give the same plan, and nothing is written.
    """
    failed = failed or {}
    readers = [_look(graph, spec) for spec in graph.order if stages is None or spec.name in stages]
    units: dict[str, list[UnitState]] = {reader.spec.name: [] for reader in readers}
    made: dict[tuple[str, str], Mapping[str, Any]] = {}
    aside = list(set_aside)
    complete: dict[str, dict[str, Any]] = {}
    for source in sources:
        own = _FieldPlan(graph, source, ledger, tiling, seed, hash_of, failed, made)
        for reader in readers:
            if reader.spec.scope is not Scope.RELEASE:
                units[reader.spec.name].extend(own.plan(reader))
        if own.bad:
            aside.append(own.bad)
        else:
            complete[source.field.name] = own.state_of
    described = {s.field.name: describe_field(s.field) for s in sources}
    release_states: dict[str, State] = {}
    for reader in readers:
        if reader.spec.scope is Scope.RELEASE:
            state = _plan_release(
                graph, reader, complete, described, release_states, ledger, tiling, seed, failed, made
            )
            release_states[reader.spec.name] = state.state
            units[reader.spec.name].append(state)
    ordered = tuple(unit for reader in readers for unit in units[reader.spec.name])
    return Plan(ordered, made, tuple(aside))


def _look(graph: Graph, spec: StageSpec) -> _Reader:
    reader = _Reader(spec)
    kinds = {product.name: product.kind for product in spec.reads}
    for product, writer in graph.reads(spec.name).items():
        scope, rows_only = reader.sources.get(writer, (graph.spec(writer).scope, True))
        reader.sources[writer] = (scope, rows_only and kinds[product] is not Kind.ARRAY)
    return reader


class _FieldPlan:
    """The plan of one field, stage by stage."""

    def __init__(
        self,
        graph: Graph,
        source: Source,
        ledger: Ledger,
        tiling: Tiling,
        seed: int,
        hash_of: Callable[[Source], str],
        failed: Mapping[Unit, tuple[str, str]],
        made: dict[tuple[str, str], Mapping[str, Any]],
    ) -> None:
        self.graph, self.source, self.ledger, self.tiling = graph, source, ledger, tiling
        self.seed, self.hash_of, self.failed, self.made = seed, hash_of, failed, made
        self.name = source.field.name
        self.tiles = split_tiles(source.field.shape, tiling.core_px, tiling.halo_px)
        self.described = describe_field(source.field)
        self.state_of: dict[str, dict[str, State]] = {}
        """Stage to tile to state."""
        self.digest: dict[str, str] = {}
        self.why: dict[str, str] = {}
        self.bad: SetAside | None = None

    def plan(self, reader: _Reader) -> list[UnitState]:
        spec = reader.spec
        made_by = self._describe(reader)
        self.made[self.name, spec.name] = made_by
        self.digest[spec.name] = hash_json(made_by)
        names = [FIELD_TILE] if spec.scope is Scope.FIELD else [tile.name for tile in self.tiles]
        blocked = self._blocked(reader)
        found = []
        for index, name in enumerate(names):
            unit = Unit(self.name, spec.name, name)
            # The hash of the whole is taken once a stage, not once a tile.
            key = unit_key({"digest": self.digest[spec.name]}, name)
            why = blocked(index)
            found.append(_judge(unit, key, made_by, self.ledger, self.failed, self.bad, why, self.why))
        self.state_of[spec.name] = {state.unit.tile: state.state for state in found}
        if spec.name == INGEST and all(state.state == "done" for state in found):
            self.bad = self.ledger.check_field(self.name, [state.unit for state in found])
        return found

    def _describe(self, reader: _Reader) -> dict[str, Any]:
        spec, source, core = reader.spec, self.source, self.tiling.core_px
        if spec.name == INGEST:
            return describe_ingest(
                spec,
                sha256=self.hash_of(source),
                reader=source.reader,
                hdu=source.hdu,
                scale=source.scale,
                core=core,
            )
        reads = {writer: self.digest[writer] for writer in reader.sources if writer in self.digest}
        options = self.graph.options[spec.name]
        return describe_stage(spec, options, field=self.described, reads=reads, core=core, seed=self.seed)

    def _blocked(self, reader: _Reader) -> Callable[[int], str]:
        """Return a function that says what the tile of an index waits for, or an empty string."""
        bad: dict[str, list[tuple[str, State]]] = {}
        for writer in reader.sources:
            states = [(t, s) for t, s in self.state_of.get(writer, {}).items() if s in _BLOCKED]
            if states:
                bad[writer] = states
        if not bad:
            return lambda index: ""
        by_name = {tile.name: tile for tile in self.tiles}

        def find(index: int) -> str:
            tile = self.tiles[index]
            for writer, states in bad.items():
                scope, rows_only = reader.sources[writer]
                for name, state in states:
                    whole = FIELD_TILE in (name,) or reader.spec.scope is not Scope.TILE
                    own_rows = rows_only and scope in (Scope.TILE, Scope.SOURCE)
                    if own_rows and reader.spec.scope in (Scope.TILE, Scope.SOURCE):
                        if name == tile.name:
                            return f"needs {writer} of tile {name}, which is {state}"
                    elif whole or _overlap(by_name[name].core, tile.window):
                        place = "" if name == FIELD_TILE else f" of tile {name}"
                        return f"needs {writer}{place}, which is {state}"
            return ""

        return find


def _overlap(a: Window, b: Window) -> bool:
    return a.y0 < b.y1 and b.y0 < a.y1 and a.x0 < b.x1 and b.x0 < a.x1


def _judge(
    unit: Unit,
    key: str,
    made_by: Mapping[str, Any],
    ledger: Ledger,
    failed: Mapping[Unit, tuple[str, str]],
    bad: SetAside | None,
    blocked: str,
    why: dict[str, str],
) -> UnitState:
    """Say how one unit stands."""
    if bad is not None:
        return UnitState(unit, key, "aside", bad.cause, bad.hint)
    commit = ledger.commits.get(unit)
    if commit is not None and commit.key == key:
        if not commit.wrong:
            return UnitState(unit, key, "done")
        reason, state = f"damaged: {commit.wrong}", "todo"
    elif commit is not None:
        reason, state = why.get(unit.stage, ""), "stale"
        if not reason:
            reason = _explain(commit.made_by, made_by, why)
            why[unit.stage] = reason
    else:
        reason, state = "", "todo"
    held = ledger.quarantined.get(unit)
    if held is not None and held["key"] == key:
        return UnitState(unit, key, "quarantined", str(held["cause"]), str(held["hint"]))
    if unit in failed:
        return UnitState(unit, key, "aside", *failed[unit])
    if blocked:
        return UnitState(unit, key, "waiting", blocked)
    return UnitState(unit, key, "stale" if state == "stale" else "todo", reason)


def _explain(old: Mapping[str, Any], new: Mapping[str, Any], why: Mapping[str, str]) -> str:
    """Explain a stale unit, following an input that changed to what changed there."""
    reason = explain_change(old, new)
    deeper = [
        f"{stage}: {why[stage]}"
        for stage, digest in dict(new.get("reads", {})).items()
        if stage in why and dict(old.get("reads", {})).get(stage) != digest
    ]
    return f"{reason} ({'; '.join(deeper)})" if deeper else reason


def _plan_release(
    graph: Graph,
    reader: _Reader,
    fields: Mapping[str, Mapping[str, Mapping[str, State]]],
    described: Mapping[str, Any],
    release_states: Mapping[str, State],
    ledger: Ledger,
    tiling: Tiling,
    seed: int,
    failed: Mapping[Unit, tuple[str, str]],
    made: dict[tuple[str, str], Mapping[str, Any]],
) -> UnitState:
    """Plan a stage that looks at all fields: those that have all it reads."""
    spec = reader.spec
    near = [w for w, (scope, _) in reader.sources.items() if scope is not Scope.RELEASE]
    used = [
        name
        for name in sorted(fields)
        if not any(s in _BLOCKED for writer in near for s in fields[name].get(writer, {}).values())
    ]
    reads: dict[str, Any] = {w: {name: hash_json(made[name, w]) for name in used} for w in near}
    for writer in reader.sources:
        if writer not in near:
            reads[writer] = hash_json(made[RELEASE, writer])
    made_by = describe_stage(
        spec,
        graph.options[spec.name],
        field={name: described[name] for name in used},
        reads=reads,
        core=tiling.core_px,
        seed=seed,
    )
    made[RELEASE, spec.name] = made_by
    unit = Unit(RELEASE, spec.name, RELEASE_TILE)
    key = unit_key({"digest": hash_json(made_by)}, RELEASE_TILE)
    blocked = "" if used else "needs a field that has all it reads"
    for writer in reader.sources:
        if release_states.get(writer) in _BLOCKED:
            blocked = f"needs {writer}, which is {release_states[writer]}"
    return _judge(unit, key, made_by, ledger, failed, None, blocked, {})


def tiles_of(shape: tuple[int, int], tiling: Tiling) -> dict[str, Tile]:
    """Return the tiles of a field by name."""
    return {tile.name: tile for tile in split_tiles(shape, tiling.core_px, tiling.halo_px)}
