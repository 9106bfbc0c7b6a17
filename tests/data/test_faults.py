"""The commit protocol against the real thing: killed writers, a full disk, a forbidden folder."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_release import CORE, make_config, make_field, make_store

from survey_ml.data.commit import Unit, check_commit, clean, list_commits, write_commit
from survey_ml.data.store import ReleaseStore
from survey_ml.errors import StoreError
from survey_ml.field import split_tiles

WRITER = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
from test_faults import commit_all
print("ready", flush=True)
commit_all({out!r}, float({value}))
print("done", flush=True)
"""
SHAPE = (4 * CORE, 4 * CORE)


def make_pixels(tile, value: float) -> np.ndarray:
    """Noise that differs from tile to tile and from value to value, so that no bytes agree by chance."""
    seed = [int(value), tile.core.y0, tile.core.x0]
    return np.random.default_rng(seed).standard_normal(tile.core.shape).astype(np.float32)


def commit_all(out: str, value: float) -> None:
    """Commit every tile of the field whose key is not there yet."""
    store = ReleaseStore.open(out)
    done = list_commits(store, "north")
    key = f"{int(value):064d}"
    for tile in split_tiles(SHAPE, CORE, 0):
        unit = Unit("north", "work", tile.name)
        if unit in done and done[unit].key == key:
            continue
        write_commit(
            store, unit, key, made_by={}, tile=tile, arrays={"image": make_pixels(tile, value)}, summaries={}
        )


def start_writer(out: str, value: float) -> subprocess.Popen:
    code = WRITER.format(tests=str(Path(__file__).parent), out=out, value=value)
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def count_verified(store: ReleaseStore) -> dict[str, int]:
    """Check that every commit is whole and that its pixels are those of its key; count them by key."""
    tiles = {tile.name: tile for tile in split_tiles(SHAPE, CORE, 0)}
    counts: dict[str, int] = {}
    for unit, commit in list_commits(store).items():
        assert check_commit(store, commit, deep=True) == "", unit
        tile = tiles[unit.tile]
        found = store.read("north", "image", tile.core)
        assert np.array_equal(found, make_pixels(tile, float(commit.key))), unit
        counts[commit.key] = counts.get(commit.key, 0) + 1
    return counts


def wait_for_commits(out: Path, key: str, count: int, writer: subprocess.Popen) -> None:
    """Wait until a writer has made so many commits of a key, or has ended."""
    end = time.monotonic() + 60
    while writer.poll() is None and time.monotonic() < end:
        if sum(1 for _ in out.glob(f"units/*/*/*/{key}")) >= count:
            return
        time.sleep(0.001)


def test_a_writer_killed_at_random_moments_leaves_only_whole_commits(tmp_path):
    out = str(tmp_path / "out")
    store = make_store(out, make_field(SHAPE))
    moments = random.Random(5)
    commit_all(out, 0.0)
    killed = 0
    for attempt in range(1, 6):
        # Each attempt replaces the commits of the one before: the worst moment to die.
        writer = start_writer(out, float(attempt))
        # By progress, not by the clock: a busy machine must not move all kills before or after the work.
        wait_for_commits(Path(out), f"{attempt:064d}", moments.randrange(1, 13), writer)
        time.sleep(moments.uniform(0.0, 0.01))
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=30)
        killed += writer.stdout.read() == ""
        writer.stdout.close()
        counts = count_verified(store)
        assert sum(counts.values()) >= 16 - killed, "a kill costs at most the unit at work"
    assert killed >= 2
    commit_all(out, 99.0)
    assert count_verified(store) == {f"{99:064d}": 16}
    clean(store)
    assert not list(Path(out).rglob(".tmp-*"))


def run_limited(code: str, prepare=None) -> str:
    """Run code in a child of its own and return what it prints."""
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{code}"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, preexec_fn=prepare
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


FILL = """
from survey_ml.data.commit import list_commits
from survey_ml.errors import StoreError
from test_faults import commit_all
from survey_ml.data.store import ReleaseStore
try:
    commit_all({out!r}, 1.0)
    print("written")
except StoreError as error:
    print("refused:", error.message, "|", error.hint)
"""


def test_a_full_disk_is_named_and_leaves_no_half_commit(tmp_path):
    """A file system of 150 kB where one may be mounted; else a limit on the size of a file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)], capture_output=True
        ).returncode
        == 0
    )
    try:
        out = str(disk / "out")
        store = make_store(out, make_field(SHAPE))

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

        text = run_limited(FILL.format(out=out), None if mounted else limit)
        assert text.startswith("refused: cannot write")
        assert out in text and "Free space" in text
        assert ("No space left" if mounted else "File too large") in text
        counts = count_verified(store)
        assert sum(counts.values()) < 16
        if mounted:
            assert counts, "the first units fitted"
            subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert not list(Path(out).rglob(".tmp-*"))
        commit_all(out, 1.0)
        assert count_verified(store) == {f"{1:064d}": 16}
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


FORBIDDEN = """
import os
from pathlib import Path
from survey_ml.errors import StoreError
from survey_ml.data.store import ReleaseStore
from small_release import make_config
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    ReleaseStore.create({out!r}, make_config(Path("/"), out={out!r}))
    print("written")
except StoreError as error:
    print("refused:", error.message, "|", error.hint)
"""


def test_a_forbidden_folder_is_named(tmp_path):
    for folder in [tmp_path, *tmp_path.parents[:2]]:
        folder.chmod(0o755)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    out = str(locked / "out")
    text = run_limited(FORBIDDEN.format(out=out))
    assert text.startswith("refused: cannot write")
    assert out in text and "Permission denied" in text and "Choose another `out`" in text


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("a letter")
    with pytest.raises(StoreError, match="is a file"):
        ReleaseStore.create(str(tmp_path / "out"), make_config(tmp_path))
    with pytest.raises(StoreError, match=r"out/deeper.*Not a directory"):
        ReleaseStore.create(str(tmp_path / "out/deeper"), make_config(tmp_path))
