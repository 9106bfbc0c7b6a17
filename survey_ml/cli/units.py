"""The units of work that a release has, stage by stage, from nothing but its store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from survey_ml.errors import ConfigError, SurveyMLError

if TYPE_CHECKING:
    from survey_ml.data.store import ReleaseStore


def count_units(store: ReleaseStore, about: Mapping[str, Any]) -> dict[str, int | None]:
    """Return how many units each stage of a release has in the fields that it holds, in order.

    None where a stage is not installed on this machine.
    """
    from survey_ml.field import split_tiles
    from survey_ml.graph import build_graph
    from survey_ml.loader import config_of_release
    from survey_ml.stage import Scope

    # The YAML itself may be on another machine.
    config = config_of_release(about, store.out).model_copy(update={"source": ""})
    fields = store.fields()
    tiling = config.release.tiling
    tiles = sum(len(split_tiles(store.field(name).shape, tiling.core_px, tiling.halo_px)) for name in fields)
    counts = {Scope.FIELD: len(fields), Scope.RELEASE: 1}
    try:
        order = build_graph(config).order
    except SurveyMLError:
        # A plugin that is not installed on this machine: its stages are known by what they committed.
        return dict.fromkeys(order_stages(config.release.stages, config.release.providers))
    return {spec.name: counts.get(spec.scope, tiles) for spec in order}


def count_commits(store: ReleaseStore) -> dict[str, int]:
    """Return how many units of each stage are committed."""
    found = {place[:3] for place, _ in store.medium.walk_markers()}
    return dict(Counter(stage for _, stage, _ in found))


def order_stages(names: Iterable[str], providers: Mapping[str, str]) -> list[str]:
    """Return stages in the order in which they run; those that are not installed any more come last."""
    from graphlib import CycleError, TopologicalSorter

    from survey_ml.plugins import get_manager

    known, lost = {}, []
    for name in sorted(names):
        try:
            known[name] = get_manager().stage(name, providers)
        except ConfigError:
            lost.append(name)
    writers = {product.name: name for name, spec in known.items() for product in spec.writes}
    needs = {name: [writers[p.name] for p in spec.reads if p.name in writers] for name, spec in known.items()}
    try:
        return [*TopologicalSorter(needs).static_order(), *lost]
    except CycleError:
        return [*known, *lost]
