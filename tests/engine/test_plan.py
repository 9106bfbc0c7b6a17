"""The plan: states, reasons, and that it is pure and quick."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import pytest
from releases import CORE, HALO, make_config, write_field, write_fields

from survey_ml.data.commit import Unit, list_commits, quarantine
from survey_ml.data.release import Release
from survey_ml.data.source import Source
from survey_ml.data.store import ReleaseStore
from survey_ml.engine.ledger import Ledger
from survey_ml.engine.plan import make_plan
from survey_ml.engine.run import plan_release, run_release
from survey_ml.errors import ConfigError
from survey_ml.field import Beam, Field
from survey_ml.graph import build_graph


def run(config, registry, **options):
    return run_release(config, registry=registry, assemble=False, **options)


def states(plan, stage):
    return {(u.unit.field, u.unit.tile): u.state for u in plan if u.unit.stage == stage}


def test_fresh_release_is_all_to_do_and_nothing_is_written(release_folder, registry):
    config = make_config(release_folder)
    plan = plan_release(config, registry=registry)
    assert plan.counts == {
        "done": 0, "todo": 57, "stale": 0, "quarantined": 0, "waiting": 0, "aside": 0,
    }  # fmt: skip
    assert list(plan.by_stage()) == ["ingest", "smooth", "total", "ratio", "census"]
    assert not Path(config.out).exists()


def test_option_redoes_only_what_depends_on_it(release_folder, registry):
    run(make_config(release_folder), registry)
    changed = make_config(release_folder, stages={"census": {}, "total": {"weight": 2.0}})
    plan = plan_release(changed, registry=registry)
    stale = {u.unit.stage: u.reason for u in plan if u.state == "stale"}
    assert stale == {
        "total": "option weight: 1.0 -> 2.0",
        "ratio": "input changed: total (total: option weight: 1.0 -> 2.0)",
        "census": "input changed: ratio, total",
    } or stale["census"].startswith("input changed: ratio, total")
    assert set(stale) == {"total", "ratio", "census"}
    before = {u: c.info["finished"] for u, c in commits(changed).items() if u.stage in ("ingest", "smooth")}
    result = run(changed, registry)
    assert (result.done, result.redone, result.skipped) == (21, 21, 36)
    after = {u: c.info["finished"] for u, c in commits(changed).items() if u.stage in ("ingest", "smooth")}
    assert before == after
    assert plan_release(changed, registry=registry).counts["done"] == 57


def commits(config):
    return list_commits(ReleaseStore.open(config.out))


def test_new_field_leaves_the_others_alone(release_folder, registry):
    config = make_config(release_folder)
    run(config, registry)
    write_field(release_folder / "fields" / "east.fits", seed=7)
    plan = plan_release(config, registry=registry)
    assert {u.unit.field for u in plan if u.state == "todo"} == {"east"}
    # The release as a whole is another one.
    assert {u.unit.stage: u.state for u in plan if u.state == "stale"} == {"census": "stale"}
    result = run(config, registry)
    assert (result.done, result.redone, result.skipped) == (29, 1, 56)


def test_changed_file_is_named(release_folder, registry):
    config = make_config(release_folder)
    run(config, registry)
    write_field(release_folder / "fields" / "north.fits", seed=99)
    plan = plan_release(config, registry=registry)
    reasons = {u.reason for u in plan if u.unit.field == "north" and u.unit.stage == "ingest"}
    assert reasons == {"input changed: contents of the image file"}
    assert set(states(plan, "ingest").values()) == {"stale", "done"}
    assert "ingest: input changed: contents" in next(
        u.reason for u in plan if u.unit == Unit("north", "smooth", "0_0")
    )


def test_missing_shard_is_seen(release_folder, registry):
    config = make_config(release_folder)
    run(config, registry)
    shard = Path(config.out) / "store.zarr/north/smooth/c/1/2"
    shard.unlink()
    (unit,) = [u for u in plan_release(config, registry=registry) if u.state != "done"]
    assert unit.unit == Unit("north", "smooth", "1_2")
    assert unit.state == "todo"
    assert unit.reason.startswith("damaged: ")
    result = run(config, registry)
    assert (result.done, result.redone, result.exit_code) == (1, 1, 0)
    assert shard.exists()


def test_quarantine_holds_for_one_key_and_others_wait(release_folder, registry):
    config = make_config(release_folder)
    plan = plan_release(config, registry=registry)
    run(config, registry, only="ingest")
    plan = plan_release(config, registry=registry)
    (held,) = [u for u in plan if u.unit == Unit("north", "smooth", "0_0")]
    store = ReleaseStore.open(config.out)
    quarantine(store, held.unit, held.key, "its worker died 3 times", "more memory", 3)
    result = run(config, registry)
    assert result.exit_code == 1
    causes = {(s.field, s.tile, s.stage): s.cause for s in result.set_aside}
    assert causes["north", "0_0", "smooth"] == "its worker died 3 times"
    assert causes["north", "field", "total"] == "needs smooth of tile 0_0, which is quarantined"
    assert causes["north", "", "ratio"] == "needs smooth of tile 0_0, which is quarantined"
    found = plan_release(config, registry=registry)
    assert states(found, "census") == {("_release", "release"): "done"}
    # Another option is another key: it is tried again; so it is when that is asked for.
    other = make_config(release_folder, stages={"census": {}, "smooth": {"threshold": 2.5}})
    assert plan_release(other, registry=registry).counts["quarantined"] == 0
    result = run(config, registry, retry_quarantined=True)
    assert result.exit_code == 0
    assert plan_release(config, registry=registry).counts["done"] == 57


def test_only_one_stage_and_what_it_needs(release_folder, registry):
    config = make_config(release_folder)
    result = run(config, registry, only="total")
    assert [row.name for row in result.stages] == ["ingest", "smooth", "total"]
    assert result.done == 38
    with pytest.raises(ConfigError, match="no such stage"):
        run(config, registry, only="nothing")


def test_part_made_with_other_options_does_not_stay(release_folder, registry):
    run(make_config(release_folder), registry)
    config = make_config(release_folder, stages={"census": {}, "smooth": {"fail": "0_1"}})
    result = run(config, registry)
    assert result.exit_code == 1
    held = commits(config)
    assert Unit("north", "smooth", "0_1") not in held
    assert Unit("north", "ratio", "0_0") not in held
    assert Unit("north", "smooth", "0_0") in held


def test_field_and_stage_that_are_gone_are_no_part_of_the_release(release_folder, registry):
    config = make_config(release_folder)
    run(config, registry)
    path = release_folder / "fields" / "south.fits"
    kept = path.read_bytes()
    path.unlink()
    result = run(make_config(release_folder, stages={"ratio": {}}), registry)
    assert (result.done, result.exit_code) == (0, 0)
    release = Release.open(config.out)
    assert release.fields == ["north"]
    assert {u.field for u in release.commits()} == {"north"}
    assert "census" not in {u.stage for u in release.commits()}
    # They come back without being made again.
    path.write_bytes(kept)
    result = run(config, registry)
    assert (result.done, result.skipped) == (0, 57)
    assert Release.open(config.out).fields == ["north", "south"]
    assert len(Release.open(config.out).commits()) == 57


def test_ten_thousand_units_in_about_a_second(tmp_path, registry):
    write_fields(tmp_path)
    config = make_config(tmp_path)
    graph = build_graph(config, registry)
    side = 24 * CORE
    sources = [
        Source(Field(f"f{i}", (side, side), "", Beam(6.0, 6.0, 0.0), 1.4e9), f"/f{i}.fits") for i in range(6)
    ]
    ledger = Ledger()
    start = time.process_time()
    plan = make_plan(graph, sources, ledger, config.release.tiling, hash_of=lambda source: "a" * 64)
    spent = time.process_time() - start
    assert len(plan) == 6 * (3 * 24 * 24 + 1) + 1
    assert plan.counts["todo"] == len(plan)
    assert spent < 1.5
    assert (
        plan.units
        == make_plan(graph, sources, ledger, config.release.tiling, hash_of=lambda source: "a" * 64).units
    )


def test_wider_halo_changes_nothing(release_folder, registry):
    config = make_config(release_folder)
    run(config, registry)
    tiling = config.release.tiling.model_copy(update={"halo_px": HALO + 4})
    wider = config.model_copy(update={"release": config.release.model_copy(update={"tiling": tiling})})
    assert plan_release(wider, registry=registry).counts["done"] == 57


def test_other_beam_redoes_stages_but_not_ingest(release_folder, registry):
    config = make_config(release_folder)
    run(config, registry)
    sources = [
        dataclasses.replace(source, field=dataclasses.replace(source.field, beam=Beam(9.0, 9.0, 0.0)))
        for source in map(ReleaseStore.open(config.out).source, ("north", "south"))
    ]
    ledger = Ledger.read(ReleaseStore.open(config.out))
    digests = {
        u.field: c.made_by["input"]["sha256"] for u, c in ledger.commits.items() if u.stage == "ingest"
    }
    plan = make_plan(
        build_graph(config, registry),
        sources,
        ledger,
        config.release.tiling,
        hash_of=lambda source: digests[source.field.name],
    )
    assert set(states(plan, "ingest").values()) == {"done"}
    assert set(states(plan, "smooth").values()) == {"stale"}
    reason = next(u.reason for u in plan if u.unit.stage == "smooth")
    assert re.search(r"beam.major \S+ -> 9.0", reason)
