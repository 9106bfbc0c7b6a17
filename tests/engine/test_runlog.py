"""The log of a run, written by the local engine; that of the Ray engine is in test_watch_ray.py."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from releases import make_config, write_field

from survey_ml.data.commit import Unit
from survey_ml.engine import records as records_module
from survey_ml.engine.masking import mask
from survey_ml.engine.records import LONGEST, MOST_CHARACTERS, MOST_RECORDS, Keeper, capture, current, install
from survey_ml.engine.run import run_release
from survey_ml.engine.runlog import KEPT, RunLog, make_run_id
from survey_ml.engine.work import Result
from survey_ml.errors import InputError


def read_log(out) -> list[dict]:
    """Return the records of the last run."""
    # Names tell the second; two runs may begin in the same one.
    path = max(Path(out).glob("logs/*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(config, registry):
    return run_release(config, registry=registry, assemble=False)


@pytest.fixture
def one_tile(tmp_path):
    write_field(tmp_path / "fields" / "north.fits", shape=(30, 30))
    return tmp_path


def run_apart(folder: Path, options: dict, **environment: str) -> tuple[list[dict], str]:
    """Run a release in a process that nobody has set up logging in."""
    code = (
        "import sys, json; sys.path[:0] = [sys.argv[1]]\n"
        "from pathlib import Path\n"
        "from releases import make_config, make_registry\n"
        "from survey_ml.engine.run import run_release\n"
        "config = make_config(Path(sys.argv[2]), stages={'odd': json.loads(sys.argv[3])})\n"
        "run_release(config, registry=make_registry(), assemble=False)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(folder), json.dumps(options)],
        env={**os.environ, **environment}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return read_log(folder / "out"), said.stdout + said.stderr


def test_a_run_writes_one_log(release_folder, registry):
    config = make_config(release_folder, stages={"smooth": {"fail": "1_1"}})
    run(config, registry)
    (path,) = Path(config.out).glob("logs/*.jsonl")
    found = read_log(config.out)
    assert {record["run"] for record in found} == {path.stem}
    assert all({"time", "level", "logger", "message", "host", "pid"} <= set(record) for record in found)
    assert [r["event"] for r in found if r.get("event", "").startswith("run_")] == ["run_begins", "run_ends"]
    failed = [record for record in found if record.get("event") == "failed"]
    assert {(r["field"], r["tile"], r["stage"], r["level"]) for r in failed} == {
        ("north", "1_1", "smooth", "WARNING"), ("south", "1_1", "smooth", "WARNING"),
    }  # fmt: skip
    assert all("ZeroDivisionError" in r["message"] and r["worker"].endswith(f":{r['pid']}") for r in failed)
    assert (found[-1]["exit_code"], found[-1]["done"], found[-1]["set_aside"]) == (1, 34, 2)
    assert [r["units"] for r in found if r.get("event") == "stage_begins"] == [18, 18]
    run(config, registry)
    assert len(list(Path(config.out).glob("logs/*.jsonl"))) == 2
    assert read_log(config.out)[-1]["skipped"] == 34


def test_what_a_stage_says_arrives_with_its_place(release_folder):
    for how, wanted in {
        "print": [("INFO", "stdout", "printed by the stage"), ("INFO", "stderr", "complained"),
                  ("INFO", "stdout", "no end of line")],
        "log": [("INFO", "trial.odd", "for your information"), ("WARNING", "trial.odd", "beware of ***"),
                ("ERROR", "trial.odd", "went wrong")],
    }.items():  # fmt: skip
        found, shown = run_apart(release_folder, {"how": how}, TRIAL_SECRET="open-sesame")
        mine = [r for r in found if r.get("tile") == "1_1" and r.get("field") == "south"]
        assert [(r["level"], r["logger"], r["message"].splitlines()[0]) for r in mine] == wanted
        assert {r["stage"] for r in mine} == {"odd"}
        assert "open-sesame" not in json.dumps(found)
        # What people saw at the terminal they still see, once.
        assert shown.count("beware of open-sesame" if how == "log" else "printed by the stage") == 2
    assert "ValueError: inside" in mine[-1]["message"]


def test_warnings_arrive_and_are_still_shown(release_folder):
    found, shown = run_apart(release_folder, {"how": "warn"}, PYTHONWARNINGS="always")
    mine = [r for r in found if r["logger"] == "py.warnings"]
    assert [(r["field"], r["tile"], r["stage"]) for r in mine] == [
        ("north", "1_1", "odd"), ("south", "1_1", "odd"),
    ]  # fmt: skip
    assert mine[0]["message"].endswith("UserWarning: deprecated, perhaps")
    assert shown.count("UserWarning: deprecated, perhaps") == 2


def test_a_flood_is_bounded(one_tile, registry):
    config = make_config(one_tile, stages={"odd": {"how": "flood", "tile": ""}})
    run(config, registry)
    said = [r["message"] for r in read_log(config.out) if r.get("tile") == "0_0"]
    assert said[:MOST_RECORDS] == [f"line {n}" for n in range(MOST_RECORDS)]
    assert said[MOST_RECORDS:] == [f"{1000 - MOST_RECORDS} more records of this unit were dropped"]


def test_a_keeper_is_bounded_in_size():
    keeper = Keeper()
    for _ in range(100):
        keeper.keep("INFO", "x", "a" * 10_000)
    *kept, last = keeper.take()
    assert sum(len(r["message"]) for r in kept) <= MOST_CHARACTERS
    assert all(len(r["message"]) < LONGEST + 50 for r in kept)
    assert "more records" in last["message"]


def test_refused_fields_and_errors_are_records(one_tile, registry):
    (one_tile / "fields" / "text.fits").write_text("no image")
    config = make_config(one_tile, stages={"smooth": {}})
    run(config, registry)
    aside = [r for r in read_log(config.out) if r.get("event") == "set_aside"]
    assert [(r["field"], "tile" in r) for r in aside] == [("text", False)]
    assert aside[0]["hint"]


def test_an_interrupt_is_a_record(one_tile, registry, monkeypatch):
    def interrupt(*rest, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("survey_ml.engine.worker.write_commit", interrupt)
    config = make_config(one_tile)
    with pytest.raises(KeyboardInterrupt):
        run(config, registry)
    assert read_log(config.out)[-1]["exit_code"] == 130
    assert current() is None


def test_a_stage_that_leaves_has_its_say(one_tile, registry):
    config = make_config(one_tile, stages={"smooth": {"leave": "0_0"}})
    run(config, registry)
    assert any(r.get("event") == "failed" and "SystemExit" in r["message"] for r in read_log(config.out))


def test_the_last_logs_are_kept(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    for number in range(30):
        (folder / f"20200101T0000{number:02d}Z-abcdef.jsonl").write_text("{}\n")
    log = RunLog(str(tmp_path), make_run_id())
    log.close()
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == KEPT
    assert names[-1] == f"{log.run}.jsonl"
    assert names[0] == "20200101T000011Z-abcdef.jsonl"


def test_a_log_that_cannot_be_written_harms_nothing(one_tile, registry):
    (one_tile / "out").mkdir()
    (one_tile / "out" / "logs").write_text("in the way")
    config = make_config(one_tile)
    assert run(config, registry).exit_code == 0


def test_a_release_at_a_url_gets_its_log_at_the_end(tmp_path):
    import fsspec

    log = RunLog("memory://bucket/release", "20260101T000000Z-abcdef")
    log.note("hello")
    log.take(Result(Unit("north", "smooth", "0_0"), "failed", cause="bad", worker="node:7"))
    log.close()
    data = fsspec.filesystem("memory").cat_file("/bucket/release/logs/20260101T000000Z-abcdef.jsonl")
    first, second = [json.loads(line) for line in data.decode().splitlines()]
    assert first["message"] == "hello"
    assert (second["host"], second["pid"], second["worker"]) == ("node", 7, "node:7")


def test_secrets_are_masked(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    monkeypatch.setenv("SOME_TOKEN", "1")
    assert mask("key hunter2hunter2, number 1") == "key ***, number 1"
    assert mask("s3://user:word@host/x and s3://bucket/y") == "s3://***@host/x and s3://bucket/y"
    log = RunLog(str(tmp_path), make_run_id())
    log.note("said hunter2hunter2", hint="try hunter2hunter2")
    logging.getLogger("survey_ml.test").warning("again hunter2hunter2")
    log.close()
    text = (tmp_path / log.path).read_text()
    assert "hunter2" not in text
    assert text.count("***") == 3


def test_listening_ends_without_a_trace():
    before = (sys.stdout, sys.stderr, warnings.showwarning, logging.getLogger().handlers[:])
    stack = install()
    with capture() as keeper:
        print("inside")
        logging.getLogger("x").warning("loud")
    print("outside")
    stack.close()
    assert [r["message"] for r in keeper.take()] == ["inside", "loud"]
    assert (sys.stdout, sys.stderr, warnings.showwarning, logging.getLogger().handlers) == before
    assert not records_module._owned


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_documented_queries_work(release_folder, registry):
    text = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    queries = [line.strip() for line in text.splitlines() if line.startswith("    ") and "jq " in line]
    assert len(queries) == 5
    config = make_config(release_folder, stages={"smooth": {"fail": "1_1"}})
    run(config, registry)
    log = RunLog(config.out, make_run_id())
    log.fail(InputError("no image", "copy one"))
    log.close()
    said = [
        subprocess.run(["bash", "-c", q], cwd=config.out, check=True, capture_output=True, text=True).stdout
        for q in queries
    ]
    assert "ZeroDivisionError" in said[0]
    assert said[1].split()[0] == "2"
    # Names of runs that begin within one second are in no order.
    failed, ended = sorted(map(json.loads, said[4].splitlines()), key=lambda record: record["state"])
    assert (ended["state"], ended["exit_code"], ended["set_aside"]) == ("set aside", 1, 2)
    assert {k: failed[k] for k in failed if k != "run"} == {
        "state": "failed", "reason": "no image", "exit_code": 2,
    }  # fmt: skip
