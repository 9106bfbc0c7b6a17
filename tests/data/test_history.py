"""Histories: entries are added, never changed, and only when they say something new."""

from __future__ import annotations

import pytest

from survey_ml.data.history import append_entry, read_history
from survey_ml.data.store import ReleaseStore


@pytest.fixture
def store(tmp_path):
    return ReleaseStore(str(tmp_path))


def test_entries_are_added_when_they_are_new(store, tmp_path):
    assert read_history(store, "shift") == []
    assert append_entry(store, "shift", {"a": 1.5}, when="2026-01-01T00:00:00Z")
    assert not append_entry(store, "shift", {"a": 1.5}, when="2026-01-02T00:00:00Z")
    first = (tmp_path / "history/shift/000001.json").read_bytes()
    assert append_entry(store, "shift", {"a": None}, when="2026-01-03T00:00:00Z")
    assert append_entry(store, "shift", {"a": 1.5}, when="2026-01-04T00:00:00Z")
    assert (tmp_path / "history/shift/000001.json").read_bytes() == first
    found = read_history(store, "shift")
    assert [one["number"] for one in found] == [1, 2, 3]
    assert [one["entry"]["a"] for one in found] == [1.5, None, 1.5]
    assert found[2]["when"] == "2026-01-04T00:00:00Z"
    assert read_history(store, "other") == []


def test_a_damaged_entry_is_left_out_and_kept_as_it_is(store, tmp_path, caplog):
    for number in range(3):
        append_entry(store, "shift", {"a": number}, when="2026-01-01T00:00:00Z")
    path = tmp_path / "history/shift/000003.json"
    path.write_text("{")
    assert [one["number"] for one in read_history(store, "shift")] == [1, 2]
    assert "damaged and left out" in caplog.text
    assert append_entry(store, "shift", {"a": 1}, when="2026-01-01T00:00:00Z")
    assert path.read_text() == "{"
    assert [one["number"] for one in read_history(store, "shift")] == [1, 2, 4]


def test_what_a_killed_writer_left_is_no_entry(store, tmp_path):
    append_entry(store, "shift", {"a": 1}, when="2026-01-01T00:00:00Z")
    (tmp_path / "history/shift/.aside-000002.json-0").write_text("{")
    (tmp_path / "history/shift/notes.txt").write_text("mine")
    assert len(read_history(store, "shift")) == 1
