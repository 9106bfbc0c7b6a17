"""The images of a release: which are found, what they are called, which are set aside."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from fits_files import make_image, write_image
from small_release import make_config

from survey_ml.data.ingest import check_field, close_readers, count_pixels, ingest_tile
from survey_ml.data.inputs import find_sources, name_field
from survey_ml.data.stamps import hash_input
from survey_ml.data.store import ReleaseStore
from survey_ml.errors import ChangedError, InputError, PluginError
from survey_ml.field import Beam, Field, Window, split_tiles
from survey_ml.hookspecs import ReaderSpec
from survey_ml.loader import config_for_images


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/north.fits", "north"),
        ("/data/100_016.732+000.523.fits.fz", "100_016.732+000.523"),
        ("s3://bucket/a/North 1 (new).FITS", "North_1__new_"),
        ("x.fits.gz", "x"),
        ("ä/ü b.fits", "__b".lstrip("_")),
        ("plain", "plain"),
        (".hidden.fits", "hidden"),
        ("_release.fits", "release"),
    ],
)
def test_names_are_safe_in_paths_and_urls(path, name):
    assert name_field(path) == name


@pytest.mark.parametrize("path", [".fits", "/data/..fits.fz", "___.fits"])
def test_a_name_of_nothing_is_refused(path):
    with pytest.raises(InputError, match="no field name"):
        name_field(path)


def find(base: Path, *fields, readers=(), **options):
    sources, aside = find_sources(make_config(base, fields=list(fields), **options), readers)
    return {source.field.name: source for source in sources}, {item.field: item for item in aside}


def test_globs_are_relative_and_found_once(tmp_path):
    (tmp_path / "deep").mkdir()
    write_image(tmp_path / "b.fits")
    write_image(tmp_path / "a.fits.fz", kind="rows")
    write_image(tmp_path / "deep/c.fits.gz", kind="gzip")
    sources, aside = find(tmp_path, "*.fits*", "./a.fits.fz", "**/*.gz", str(tmp_path / "b.fits"))
    assert list(sources) == ["a", "b", "c"] and not aside
    assert sources["c"].path == str(tmp_path / "deep/c.fits.gz")
    assert {source.reader for source in sources.values()} == {"fits"}


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path):
    write_image(tmp_path / "field[1].fits")
    sources, aside = find(tmp_path, "field[1].fits")
    assert list(sources) == ["field_1_"] and not aside


def test_a_link_gives_its_field_its_name_and_a_file_is_taken_once(tmp_path):
    (tmp_path / "real").mkdir()
    target = write_image(tmp_path / "real/a.fits")
    (tmp_path / "link.fits").symlink_to(target)
    (tmp_path / "loop.fits").symlink_to(tmp_path / "loop.fits")
    write_image(tmp_path / "b.fits")
    sources, aside = find(tmp_path, "*.fits", "real/*.fits")
    assert list(sources) == ["b", "link"]
    assert list(aside) == ["loop"]


@pytest.mark.parametrize("name", ["x.fits", "x.fits.gz", "x.fz", "x.txt"])
@pytest.mark.parametrize("kind", ["named pipe", "socket", "device"])
def test_what_is_no_regular_file_is_no_image_and_holds_nobody_up(tmp_path, name, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if kind == "named pipe":
        os.mkfifo(name)
    elif kind == "device":
        Path(name).symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(name)
    write_image(tmp_path / "good.fits")
    for fields in ([name, "good.fits"], ["*.f*", "*.txt"]):
        sources, aside = find(tmp_path, *fields, readers=[READER])
        assert list(sources) == ["good"]
        assert aside["x"].cause == f"{tmp_path / name} is a {kind}, not a regular file"
        assert "Leave it out" in aside["x"].hint


def test_a_name_that_the_store_needs_is_refused(tmp_path):
    write_image(tmp_path / "zarr.json.fits")
    sources, aside = find(tmp_path, "*.fits")
    assert not sources
    (item,) = aside.values()
    assert "no name for a field" in item.cause and "name" in item.hint


def test_an_entry_of_its_own_wins_over_a_glob(tmp_path):
    write_image(tmp_path / "a.fits", BMAJ=None, BUNIT=None)
    write_image(tmp_path / "b.fits", BMAJ=None, BUNIT=None)
    own = {"path": "a.fits", "name": "first one", "beam_arcsec": [9, 8, 7], "unit": "mJy/beam"}
    sources, aside = find(tmp_path, "*.fits", own, defaults={"beam_arcsec": [5.4, 5.4, 0], "unit": "Jy/beam"})
    assert not aside
    assert sources["first_one"].field.beam == Beam(9, 8, 7) and sources["first_one"].scale == 1e-3
    assert sources["b"].field.beam == Beam(5.4, 5.4, 0) and sources["b"].scale == 1.0


def test_notes_of_the_header_travel_with_the_source(tmp_path):
    write_image(tmp_path / "a.fits")
    sources, _ = find(tmp_path, "a.fits", defaults={"beam_arcsec": [9, 9, 0]})
    assert "not used" in sources["a"].notes[0]


def test_bad_files_are_set_aside_with_remedies_and_the_good_ones_kept(tmp_path):
    write_image(tmp_path / "good.fits")
    (tmp_path / "text.fits").write_text("no image")
    write_image(tmp_path / "nobeam.fits", BMAJ=None)
    write_image(tmp_path / "kelvin.fits", BUNIT="K")
    write_image(tmp_path / "nowcs.fits", CTYPE1=None, CTYPE2=None)
    write_image(tmp_path / "tiny.fits", np.zeros((3, 3), np.float32))
    write_image(tmp_path / "cube.fits", np.zeros((5, 30, 30), np.float32), CTYPE3="FREQ", CRVAL3=1e9)
    write_image(tmp_path / "short.fits")
    os.truncate(tmp_path / "short.fits", 20_000)
    sources, aside = find(tmp_path, "*.fits")
    assert list(sources) == ["good"]
    words = {
        "text": "not a FITS",
        "nobeam": "no beam",
        "kelvin": "'K'",
        "nowcs": "no celestial WCS",
        "tiny": "3 x 3 px",
        "cube": "5 planes",
        "short": "truncated",
    }
    assert set(aside) == set(words)
    for name, item in aside.items():
        assert words[name] in item.cause and item.hint, item


def test_patterns_and_paths_without_files_are_named(tmp_path):
    _, aside = find(tmp_path, "*.fits", "gone.fits")
    assert "no file matches" in aside["*.fits"].cause and "there is no file" in aside["gone.fits"].cause
    assert all(item.hint for item in aside.values())


def test_a_folder_is_told_from_a_file_that_is_not_there(tmp_path):
    (tmp_path / "night[1]").mkdir()
    _, aside = find(tmp_path, "night[[]1]", "gone[[]1].fits")
    assert aside["night[1]"].cause == "night[1] is a folder"
    assert "night[1]/*.fits" in aside["night[1]"].hint
    assert aside["gone[1].fits"].cause == "there is no file gone[1].fits"


def test_hints_without_a_yaml_name_the_command_line(tmp_path):
    write_image(tmp_path / "nobeam.fits", BMAJ=None)
    write_image(tmp_path / "nounit.fits", BUNIT=None)
    paths = [str(tmp_path / name) for name in ("nobeam.fits", "nounit.fits", "gone.fits", "*.fit")]
    _, aside = find_sources(config_for_images(paths, str(tmp_path / "out")))
    hints = {item.cause: item.hint for item in aside}
    assert "--set defaults.beam_arcsec='[5.4,5.4,0]'" in hints["the header has no beam (BMAJ, BMIN, BPA)"]
    assert "--set defaults.unit=Jy/beam" in hints["the header has no BUNIT"]
    assert hints[f"there is no file {tmp_path}/gone.fits"] == "Correct the path."
    assert "quotes" in hints[f"there is no file {tmp_path}/*.fit"]
    assert not [item for item in aside if "YAML" in item.hint or "[*]" in item.field]


def test_the_command_line_hint_works(tmp_path):
    write_image(tmp_path / "a.fits", BMAJ=None, BMIN=None, BPA=None, BUNIT=None)
    settings = ["defaults.beam_arcsec=[5.4,5.4,0]", "defaults.unit=Jy/beam"]
    config = config_for_images([str(tmp_path / "a.fits")], str(tmp_path / "out"), settings=settings)
    (source,), aside = find_sources(config)
    assert not aside
    assert source.field.beam == Beam(5.4, 5.4, 0.0)
    assert [word in " ".join(source.notes) for word in ("unit", "beam", "no frequency")] == [True] * 3


def test_images_of_one_name_are_all_set_aside(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "a.fits")
    write_image(tmp_path / "b.fits")
    config = make_config(tmp_path, fields=["*/a.fits", "b.fits"])
    sources, aside = find_sources(config)
    assert [source.field.name for source in sources] == ["b"]
    assert [item.field for item in aside] == ["a", "a"]
    assert str(tmp_path / "two/a.fits") in aside[0].cause and "name" in aside[0].hint


def test_one_name_for_many_files_is_refused(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.fits")
    sources, aside = find(tmp_path, {"path": "*.fits", "name": "same"})
    assert not sources and "2 files" in aside["same"].cause


# Other formats


class TextReader:
    """Reads images from text files, as a plugin would."""

    def __init__(self, path, hdu=None):
        self.path = path

    def describe(self, defaults, name):
        header = find_header()
        return Field("ignored", np.loadtxt(self.path).shape, header, Beam(6, 6, 0), 1e9), 2.0

    def read(self, window: Window):
        return np.loadtxt(self.path, dtype=np.float32)[window.slices]

    def close(self):
        pass


def find_header() -> str:
    from small_release import make_field

    return make_field((20, 30)).header


READER = ReaderSpec("text", "test_inputs:TextReader", (".txt", ".fits.txt"))


def test_the_longest_suffix_chooses_the_reader(tmp_path):
    values = np.arange(600.0, dtype=np.float32).reshape(20, 30)
    np.savetxt(tmp_path / "a.fits.txt", values)
    write_image(tmp_path / "b.fits")
    sources, aside = find(tmp_path, "*.txt", "*.fits", readers=[READER])
    assert not aside and sources["a"].reader == "test_inputs:TextReader" and sources["b"].reader == "fits"
    pixels, _ = ingest_tile(sources["a"], split_tiles((20, 30), 16, 0)[1])
    assert np.array_equal(pixels, 2 * values[:16, 16:])


def test_a_reader_that_fails_sets_only_its_field_aside(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    write_image(tmp_path / "b.fits")
    sources, aside = find(tmp_path, "*.txt", "*.fits", readers=[READER])
    assert list(sources) == ["b"] and "ValueError" in aside["a"].cause
    broken = ReaderSpec("gone", "no_such_module:Reader", (".txt",))
    _, aside = find(tmp_path, "*.txt", readers=[broken])
    assert "no_such_module" in aside["a"].cause
    from survey_ml.data.ingest import make_reader

    with pytest.raises(PluginError):
        make_reader("no_such_module:Reader", "a.txt", None)


# Pixels


def ingest_all(path: Path, core=64, **options):
    sources, aside = find(path.parent, path.name, **options)
    assert not aside
    source = next(iter(sources.values()))
    tiles = split_tiles(source.field.shape, core, 8)
    return source, tiles, [ingest_tile(source, tile) for tile in tiles]


@pytest.mark.parametrize("kind", ["plain", "rows"])
def test_tiles_hold_their_cores_in_jansky(tmp_path, kind):
    path = write_image(tmp_path / "a.fits", kind=kind, BUNIT="mJy/beam")
    _, tiles, found = ingest_all(path)
    expected = make_image() * np.float32(1e-3)
    for tile, (pixels, _) in zip(tiles, found, strict=True):
        assert np.array_equal(pixels, expected[tile.core.slices], equal_nan=True)
    counts = [summary for _, summary in found]
    assert sum(item["n_pixels"] for item in counts) == 15000
    assert sum(item["n_blank"] for item in counts) == 600
    assert sum(item["n_infinite"] for item in counts) == 0
    assert min(item["minimum"] for item in counts) == np.nanmin(expected)
    assert max(item["maximum"] for item in counts) == np.nanmax(expected)
    assert check_field("a", counts) is None


@pytest.mark.parametrize("shape", [(1,), (7, 9), (0, 4)])
@pytest.mark.parametrize("spoil", [(), (np.nan,), (np.inf,), (-np.inf, np.inf), (np.nan, np.inf)])
def test_counts_are_exact(shape, spoil):
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for place, value in enumerate(spoil[: values.size]):
        values.flat[place] = value
    finite = values[np.isfinite(values)]
    counts = count_pixels(values)
    assert counts == {
        "n_pixels": values.size,
        "n_finite": finite.size,
        "n_blank": int(np.isnan(values).sum()),
        "n_infinite": int(np.isinf(values).sum()),
        "minimum": float(finite.min()) if finite.size else None,
        "maximum": float(finite.max()) if finite.size else None,
    }


def test_counts_do_not_overflow():
    values = np.full((100, 100), 3e38, dtype=np.float32)
    assert count_pixels(values)["n_finite"] == 10_000


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((40, 40), np.nan), "blank"),
        (np.full((40, 40), 1.5), "all pixels are 1.5"),
        (np.where(np.arange(1600).reshape(40, 40) < 9, np.inf, 0.5), "9 pixels are infinite"),
        (np.where(np.arange(1600).reshape(40, 40) < 99, 0.5, np.nan), "only 99 pixels"),
        (np.where(np.arange(1600).reshape(40, 40) < 800, 0.5, 0.25), "only 0 pixels are neither"),
    ],
)
def test_pixels_that_cannot_be_used_set_the_field_aside(tmp_path, values, words):
    path = write_image(tmp_path / "a.fits", values.astype(np.float32))
    _, _, found = ingest_all(path, core=16)
    aside = check_field("a", [summary for _, summary in found])
    assert aside.field == "a" and words in aside.cause and aside.hint


@pytest.mark.parametrize("core", [16, 40, 512])
def test_padding_is_blank_whatever_the_tiling(tmp_path, core):
    values = make_image((90, 100))
    padded = np.zeros(values.shape, bool)
    padded[:, :33] = padded[70:] = True
    values[padded] = np.float32(3.2e-7)
    values[80, 50] = np.nan
    _, tiles, found = ingest_all(write_image(tmp_path / "a.fits", values), core=core)
    whole = np.empty(values.shape, np.float32)
    for tile, (pixels, _) in zip(tiles, found, strict=True):
        whole[tile.core.slices] = pixels
    expected = np.where(padded, np.nan, values)
    np.testing.assert_array_equal(whole, expected)
    assert sum(summary["n_padding"] for _, summary in found) == np.count_nonzero(padded) - 1
    assert sum(summary["n_blank"] for _, summary in found) == np.count_nonzero(np.isnan(values))


def test_a_file_that_changes_is_opened_anew(tmp_path):
    path = write_image(tmp_path / "a.fits")
    source, tiles, _ = ingest_all(path)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read") as caught:
        ingest_tile(source, tiles[0])
    assert caught.value.field == "a"
    write_image(path, make_image(seed=9))
    assert np.array_equal(
        ingest_tile(source, tiles[0])[0], make_image(seed=9)[tiles[0].core.slices], equal_nan=True
    )
    close_readers()


# Checksums


def test_an_input_is_hashed_once_and_again_when_it_changes(tmp_path, monkeypatch):
    import hashlib

    from survey_ml.data import stamps

    path = write_image(tmp_path / "a.fits")
    sources, _ = find(tmp_path, "a.fits")
    store = ReleaseStore.create(str(tmp_path / "out"), make_config(tmp_path))
    first = hash_input(sources["a"], store)
    assert first == hashlib.sha256(path.read_bytes()).hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(stamps, "digest_file", lambda path: pytest.fail("read again"))
        assert hash_input(sources["a"], store) == first
        assert hash_input(sources["a"], ReleaseStore.open(store.out)) == first
    path.unlink()
    write_image(path, make_image(seed=5))
    # With the header of the old file goes its checksum; without, nobody knows what was there.
    assert hash_input(sources["a"], ReleaseStore.open(store.out)) == first
    with pytest.raises(ChangedError, match="changed while it was read"):
        hash_input(sources["a"], ReleaseStore.create(str(tmp_path / "new"), make_config(tmp_path)))
    sources, _ = find(tmp_path, "a.fits")
    second = hash_input(sources["a"], ReleaseStore.open(store.out))
    assert second == hashlib.sha256(path.read_bytes()).hexdigest() != first
    (tmp_path / "out/inputs.json").write_text("half a li")
    assert hash_input(sources["a"], ReleaseStore.open(store.out)) == second
    path.unlink()
    (tmp_path / "out/inputs.json").unlink()
    with pytest.raises(InputError, match=r"a\.fits"):
        hash_input(sources["a"], ReleaseStore.open(store.out))


def test_an_input_replaced_under_its_old_time_is_hashed_again(tmp_path):
    path = write_image(tmp_path / "a.fits")
    sources, _ = find(tmp_path, "a.fits")
    store = ReleaseStore.create(str(tmp_path / "out"), make_config(tmp_path))
    before, first = path.stat(), hash_input(sources["a"], store)
    path.unlink()
    write_image(path, make_image(seed=5))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    sources, _ = find(tmp_path, "a.fits")
    assert hash_input(sources["a"], ReleaseStore.open(store.out)) != first
