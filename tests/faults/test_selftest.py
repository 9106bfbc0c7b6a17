"""The quick version of ``survey-ml selftest --faults``: few faults, in one process each; the rest by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from survey_ml.errors import ConfigError
from survey_ml.selftest.content import Content, compare, find_remade
from survey_ml.selftest.damage import spoil
from survey_ml.selftest.disturbed import disturb
from survey_ml.selftest.fault import Fault, Means
from survey_ml.selftest.matrix import FAULTS, choose
from survey_ml.selftest.processes import Herd, find_process, list_below
from survey_ml.selftest.session import Session

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Return a session with the trial release in it, processed undisturbed."""
    with Session(Means("local"), str(tmp_path_factory.mktemp("self") / "test"), keep=True, say=print) as made:
        made.trial = made.prepare()
        made.reference, _ = made.run_calmly(made.trial, "local")
        yield made


def run(session, kind, seed):
    """Run under one fault."""
    place = session.folder / f"{kind.name}-{seed}"
    return disturb(kind(session.means), seed, session.trial, place, session.reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed", "starts"),
    [
        ("kill-local", 3, {2}),
        ("shard-missing", 9, {1}),
    ],
)
def test_a_fault_is_survived(session, name, seed, starts):
    outcome = run(session, FAULTS[name], seed)
    assert outcome.wrong == []
    assert outcome.starts in starts
    assert outcome.done
    assert outcome.seen[-1].startswith("exit code 0")


@pytest.mark.slow
def test_what_is_lost_or_done_twice_is_told(session):
    """A fault that hides what it damages, and one that strikes too late, do not pass."""

    class Sly(FAULTS["shard-truncated"]):
        name = "sly"

        def strike(self, command, rng):
            done = super().strike(command, rng)
            self.spoiled.clear()
            command.process.kill()
            command.process.wait()
            return done

        def judge(self, command, ends):
            return "" if ends[0].code == 0 else "the run did not bear it"

    outcome = run(session, Sly, 7)
    assert not outcome.passed
    assert any(text.startswith("made again: ") for text in outcome.wrong)
    assert "the run did not bear it" in outcome.wrong


def test_the_command_says_what_there_is():
    done = subprocess.run(
        [sys.executable, "-m", "survey_ml.cli", "selftest", "--list", "--engine", "local", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {entry["fault"]: entry["not_here"] for entry in json.loads(done.stdout)["faults"]}
    assert list(listed) == list(FAULTS)
    assert listed["kill-raylet"] == "it is one of Ray's"
    assert not listed["kill-local"]


def test_a_misspelt_fault_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError) as caught:
        choose(["kill-drivr"])
    assert "kill-driver" in caught.value.hint


def test_every_fault_is_in_the_table_of_the_docs():
    text = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in FAULTS if f"`{name}`" not in text] == []


def test_differences_are_named():
    one = Content(
        markers={"a/s/0/K": "1", "a/s/1/K": "2"},
        files={"f": "x"},
        tables={"t": ["schema", "row 1", "row 2"]},
        sums={"t": "y"},
    )
    assert compare(one, one) == []
    other = Content(
        markers={"a/s/0/K": "1", "a/s/0/L": "3"},
        files={"f": "z"},
        tables={"t": ["schema", "row 1"]},
        sums={"t": "y"},
        wrong=["f"],
    )
    assert compare(one, other) == [
        "1 of 2 rows of catalogue/t differ",
        "lost: a/s/1/K",
        "not in the reference: a/s/0/L",
        "committed twice: a/s/0",
        "damaged: f",
        "other bytes in files: f",
    ]
    before, after = {"p": "1", "q": "2", "r": "3"}, {"p": "1", "q": "9", "r": "9"}
    assert find_remade(before, after, {"r"}) == ["q"]


@pytest.mark.parametrize("manner", ["flipped", "truncated", "missing"])
def test_damage_changes_a_file(tmp_path, manner):
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    spoil(path, manner, Random(1))
    assert not path.exists() or path.read_bytes() != bytes(100)
    if manner == "flipped":
        assert sum(path.read_bytes().count(bytes([1 << bit])) for bit in range(8)) == 1


def test_processes_that_outlive_their_command_are_found():
    wait = "import time; time.sleep(60)"
    start = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {wait!r}]); print(1, flush=True)"
    )
    code = f"{start}; {wait}"
    with Herd() as herd:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        herd.add(process.pid)
        assert process.stdout.readline()
        (child,) = list_below(process.pid)
        herd.look()
        process.kill()
        process.wait()
        process.stdout.close()
        assert herd.wait(0.2) == [child]
        assert child.alive
        assert find_process(os.getpid()).alive
    assert herd.wait(20) == []


def test_a_fault_must_say_what_it_does():
    with pytest.raises(NotImplementedError):
        Fault().strike(None, Random(1))
