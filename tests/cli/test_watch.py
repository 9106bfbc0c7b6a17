"""Images arrive while a release is watched: half, twice, renamed, replaced; in a folder and in a bucket."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest
from cli_release import write_image

from survey_ml.cli.configuration import load
from survey_ml.data.arrivals import is_complete
from survey_ml.data.store import ReleaseStore
from survey_ml.engine.watch import Watch, watch_release
from survey_ml.errors import StoreError


class Inbox:
    """Where images arrive, and the release that watches it."""

    def __init__(self, yaml: Path, place: str, out: str) -> None:
        self.yaml, self.place = yaml, place
        self.medium = ReleaseStore(place).medium
        self.store = ReleaseStore(out)

    def put(self, name: str, data: bytes) -> None:
        self.medium.replace(name, data)

    def watch(self) -> Watch:
        return Watch(load([str(self.yaml)], None), assemble=False)

    @property
    def taken(self) -> dict:
        found = json.loads(self.store.medium.read("taken.json"))
        return {path.rpartition("/")[2]: entry for path, entry in found.items()}


@pytest.fixture(params=["disk", "s3"])
def inbox(request, release, tmp_path) -> Inbox:
    if request.param == "s3":
        bucket = request.getfixturevalue("s3_bucket")
        place, out = f"s3://{bucket}/in", f"s3://{bucket}/out"
    else:
        place, out = str(tmp_path / "in"), str(release.parent / "out")
    text = release.read_text().replace("'*.fits'", f"'{place}/*.fits'").replace("out: out", f"out: {out}")
    release.write_text(text)
    ReleaseStore(place).medium.prepare()
    return Inbox(release, place, out)


@pytest.fixture
def image(tmp_path):
    def make(seed: int) -> bytes:
        path = tmp_path / f"seed{seed}.image"
        return write_image(path, seed=seed).read_bytes()

    return make


def test_images_are_processed_once_when_they_are_whole(inbox, image, caplog):
    first, second = image(1), image(2)
    watch = inbox.watch()
    assert watch.look() is None
    inbox.put("east.fits", first)
    inbox.put("west.fits", second[:5000])
    assert watch.look() is None, "the first look at anything only notes it"
    result = watch.look()
    assert (result.done, result.exit_code) == (8, 0)
    assert watch.waiting and watch.waiting[0].endswith("west.fits")
    assert "shorter than its header says" in caplog.text
    assert inbox.taken.keys() == {"east.fits"}
    assert watch.look() is None
    inbox.put("west.fits", second)
    assert watch.look() is None, "it has just changed"
    result = watch.look()
    assert (result.done, result.skipped) == (8, 8)
    assert inbox.store.fields() == ["east", "west"]
    # Another watch, later, takes nothing twice.
    again = inbox.watch()
    assert (again.look(), again.look()) == (None, None)
    assert len({entry["sha256"] for entry in inbox.taken.values()}) == 2


def test_the_same_content_is_told_and_not_processed(inbox, image, caplog):
    inbox.put("east.fits", image(1))
    watch = inbox.watch()
    watch_release(watch, lambda result: None, every=0.01, rounds=2)
    inbox.put("copy.fits", inbox.medium.read("east.fits"))
    results = []
    watch_release(watch, results.append, every=0.01, rounds=3)
    assert [result.done for result in results] == [0]
    assert "the same content as" in caplog.text
    assert inbox.taken["copy.fits"]["same_as"].endswith("east.fits")
    assert inbox.store.fields() == ["east"]
    # When the first has gone, the copy is the image.
    inbox.medium.remove("east.fits")
    watch_release(watch, results.append, every=0.01, rounds=2)
    assert results[-1].done == 8
    assert inbox.taken.keys() == {"copy.fits"}


def test_an_image_that_is_replaced_is_done_again(inbox, image):
    inbox.put("east.fits", image(1))
    watch = inbox.watch()
    results = []
    watch_release(watch, results.append, every=0.01, rounds=2)
    inbox.put("east.fits", image(3))
    watch_release(watch, results.append, every=0.01, rounds=3)
    assert [(result.done, result.redone) for result in results] == [(8, 0), (8, 8)]


def test_the_command_looks_and_ends(call, inbox, image):
    inbox.put("east.fits", image(1))
    inbox.put("half.fits", image(2)[:4000])
    answer = call("watch", inbox.yaml, "--once", "--every", "0.1s")
    assert answer.code == 0
    assert "8 units done" in answer.out
    assert "not whole yet" in answer.err and "half.fits" in answer.err
    assert inbox.store.medium.read("catalogue/levels.parquet")
    assert call("watch", inbox.yaml, "--every", "soon").code == 2


def test_what_can_be_no_image_is_named_and_the_rest_processed(call, release, caplog):
    os.mkfifo(release.parent / "pipe.fits")
    (release.parent / "loop.fits").symlink_to("loop.fits")
    (release.parent / "folder").mkdir()
    text = release.read_text().replace("['*.fits']", "['*.fits', folder, 'later/*.fits']")
    release.write_text(text)
    answer = call("watch", release, "--once", "--every", "0.1s")
    assert answer.code == 1
    assert "8 units done" not in answer.out and "16 units done" in answer.out
    for words in ("pipe.fits is a named pipe", "loop.fits: Too many levels", "folder is a folder"):
        assert caplog.text.count(words) == 1, words
    assert "later" not in caplog.text, "its images may yet come"
    caplog.clear()
    again = call("watch", release, "--once", "--every", "0.1s")
    assert (again.code, again.out) == (1, "")
    assert "pipe.fits is a named pipe" in caplog.text


def test_images_of_a_place_that_does_not_answer_stay_in_the_release(inbox, image, tmp_path, monkeypatch):
    inbox.put("east.fits", image(1))
    text = inbox.yaml.read_text().replace(f"['{inbox.place}/*.fits']", f"['{inbox.place}/*.fits', late.fits]")
    inbox.yaml.write_text(text)
    watch = inbox.watch()
    watch_release(watch, lambda result: None, every=0.01, rounds=2)
    (inbox.yaml.parent / "late.fits").write_bytes(image(2))
    # An image comes in one place while the other cannot be listed.
    with monkeypatch.context() as patch:
        patch.setattr("survey_ml.data.inputs.glob", _refuse)
        patch.setattr("survey_ml.data.inputs.open_files", _refuse)
        for _ in range(3):
            with pytest.raises(StoreError, match="cannot be listed"):
                watch.look()
    assert inbox.taken.keys() == {"east.fits"}
    assert watch.look() is None
    assert watch.look().done == 8
    assert inbox.taken.keys() == {"east.fits", "late.fits"}


def grow(path: Path, data: bytes) -> None:
    """Write an image in order, with a pause longer than two looks after each part."""
    with path.open("wb", buffering=0) as file:
        for part in split(data):
            file.write(part)
            time.sleep(0.3)


def fill(path: Path, data: bytes) -> None:
    """Write into a file that has its length from the start."""
    with path.open("wb", buffering=0) as file:
        file.truncate(len(data))
        time.sleep(0.5)
        for part in split(data):
            file.write(part)
            time.sleep(0.02)


def fill_backwards(path: Path, data: bytes) -> None:
    """Write the header last, as some transfers do."""
    with path.open("wb", buffering=0) as file:
        for start in range(len(data) - 2880, -1, -2880):
            file.seek(start)
            file.write(data[start : start + 2880])
            time.sleep(0.3 if start < 2880 else 0.01)


def rename_in(path: Path, data: bytes) -> None:
    """Write beside it and rename."""
    aside = path.with_name(f".{path.name}.part")
    grow(aside, data)
    aside.rename(path)


def split(data: bytes) -> list[bytes]:
    return [data[start : start + 7000] for start in range(0, len(data), 7000)]


@pytest.mark.parametrize("write", [grow, fill, fill_backwards, rename_in])
def test_an_image_that_takes_its_time_is_taken_once_and_whole(release, tmp_path, image, write):
    for path in release.parent.glob("*.fits"):
        path.unlink()
    data = image(1)
    watch = Watch(load([str(release)], None), assemble=False)
    results = []
    writer = threading.Thread(target=write, args=(release.parent / "slow.fits", data))
    writer.start()
    while writer.is_alive():
        results.append(watch.look())
        time.sleep(0.1)
    writer.join()
    watch_release(watch, results.append, every=0.1, rounds=4)
    results = [result for result in results if result is not None]
    assert [(result.done, result.exit_code) for result in results] == [(8, 0)]
    taken = json.loads((release.parent / "out/taken.json").read_text())
    assert [entry["sha256"] for entry in taken.values()] == [hashlib.sha256(data).hexdigest()]
    assert (watch.waiting, watch.aside) == ([], [])


def _refuse(*given: object, **options: object) -> None:
    raise TimeoutError("no answer")


def test_the_length_of_fits_files(tmp_path):
    path = write_image(tmp_path / "whole.fits")
    data = path.read_bytes()
    for count, whole in ((len(data), True), (len(data) - 1, True), (3000, False), (100, False), (0, False)):
        path.write_bytes(data[:count])
        assert is_complete(str(path)) is whole, count
    path.write_bytes(data + b"\0" * 2880)
    assert is_complete(str(path))
    path.write_bytes(b"\0" * 28800)
    assert not is_complete(str(path)), "its length is set, and nothing is written yet"
    path.write_bytes(b"no FITS at all" * 300)
    assert is_complete(str(path))
    assert not is_complete(str(tmp_path / "gone.fits"))
    packed = tmp_path / "x.fits.gz"
    for start, whole in ((b"", False), (b"\0" * 3000, False), (b"\x1f\x8b and no more", True)):
        packed.write_bytes(start)
        assert is_complete(str(packed)) is whole
    (tmp_path / "x.other").write_bytes(b"\0" * 3000)
    assert is_complete(str(tmp_path / "x.other")), "of other formats nothing is known"
