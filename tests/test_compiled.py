"""Compiled code is never used with other sources than its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from survey_ml.compiled import choose_cache, hash_sources

CALLER = """
from numba import njit
from pkg.stages.inner import add
@njit(cache=True)
def total(x):
    return add(x) + 0.0
"""
INNER = """
from numba import njit
@njit(cache=True)
def add(x):
    return x + {shift}
"""
PROGRAM = """
import os, sys
from pathlib import Path
from survey_ml.compiled import VARIABLE, choose_cache
os.environ[VARIABLE] = str(choose_cache(dict(os.environ), Path(sys.argv[1]) / "pkg"))
sys.path.insert(0, sys.argv[1])
from pkg.stages.caller import total
print(total(1.0))
"""


def test_a_change_in_one_file_reaches_callers_in_others(tmp_path):
    stages = tmp_path / "pkg" / "stages"
    stages.mkdir(parents=True)
    (stages / "caller.py").write_text(CALLER)
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    answers = []
    for shift in (10.0, 20.0):
        (stages / "inner.py").write_text(INNER.format(shift=shift))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        answers.append(float(done.stdout))
    assert answers == [11.0, 21.0]
    assert len(list((tmp_path / "cache" / "survey_ml").iterdir())) == 2


def test_the_folder_follows_the_sources_and_the_environment(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "a.py").write_text("x = 1\n")
    first = choose_cache({"XDG_CACHE_HOME": "/c"}, tmp_path)
    assert first == Path("/c/survey_ml") / f"compiled-{hash_sources(tmp_path)}"
    assert choose_cache({"NUMBA_CACHE_DIR": "/mine"}, tmp_path).parent == Path("/mine")
    assert choose_cache({"NUMBA_CACHE_DIR": str(first)}, tmp_path) == first
    (tmp_path / "stages" / "a.py").write_text("x = 2\n")
    assert choose_cache({"XDG_CACHE_HOME": "/c"}, tmp_path) != first
