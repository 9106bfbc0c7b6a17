"""The release YAML: what is valid stays valid, and what is wrong is named with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from survey_ml.document import MAX_BYTES, parse_yaml
from survey_ml.errors import ConfigError
from survey_ml.graph import build_graph
from survey_ml.loader import apply_settings, config_for_images, load_config

FIRST = """\
name: first-sample
fields: ["fields/*.fits.fz"]
defaults: {beam_arcsec: [5.4, 5.4, 0.0], frequency_hz: 1.4e9, unit: Jy/beam}
tiling: {core_px: 1024, halo_px: 128}
stages:
  extraction: {seed_snr: 5.0, flood_snr: 3.0}
reference_catalogue: null        # a local file: astrometry and flux panels
out: first-sample-release
"""


@pytest.fixture
def write(tmp_path):
    def put(text: str, name: str = "release.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return put


def fault(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return caught.value


def test_the_promised_yaml_loads(write, tmp_path):
    config = load_config(write(FIRST))
    release = config.release
    assert release.defaults.frequency_hz == 1.4e9
    assert release.defaults.beam_arcsec == (5.4, 5.4, 0.0)
    assert release.stages == {"extraction": {"seed_snr": 5.0, "flood_snr": 3.0}}
    assert release.reference_catalogue is None
    assert config.out == str(tmp_path / "first-sample-release")
    assert (config.base, config.source) == (tmp_path, str(tmp_path / "release.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.4e9", 1.4e9),
        ("1e9", 1e9),
        ("-2.5E-3", -2.5e-3),
        (".5", 0.5),
        ("5.", 5.0),
        (".inf", float("inf")),
        ("010", 10),
        ("0x1F", 31),
        ("12:30:00", "12:30:00"),
        ("no", "no"),
        ("true", True),
        ("2026-01-31", "2026-01-31"),
        ("1_000", "1_000"),
        ("null", None),
        ("", None),
        ("e9", "e9"),
        (".", "."),
        ("-", [None]),
    ],
)
def test_scalars_are_what_they_look_like(text, value):
    found = parse_yaml(text, "x")[0]
    assert found == value
    assert type(found) is type(value)


def test_paths_are_relative_to_the_yaml_and_urls_are_kept(write, tmp_path):
    extra = "reference_catalogue: ../ref.fits\ntruth: s3://bucket/truth.parquet\n"
    text = FIRST.replace("reference_catalogue: null", extra).replace("first-sample-release", "s3://b/out")
    config = load_config(write(text))
    assert config.release.reference_catalogue == str(tmp_path.parent / "ref.fits")
    assert config.release.truth == "s3://bucket/truth.parquet"
    assert config.out == "s3://b/out"


def test_out_from_the_command_line_is_relative_to_the_working_directory(write, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = write(FIRST)
    monkeypatch.chdir(elsewhere)
    assert load_config(path, out="here").out == str(elsewhere / "here")


def test_every_problem_is_named_with_its_line(write):
    text = (
        "name: first sample\n"
        "fields: [{pth: a.fits}, 7]\n"
        "defaults:\n"
        "  beam_arcsec: [5.4, 5.4]\n"
        "  freqency_hz: 1.4e9\n"
        "tiling: {core_px: -3}\n"
        "engine: {kind: rey}\n"
        "stagez: {}\n"
    )
    lines = fault(write(text)).message.splitlines()
    for wanted in (
        "release.yaml:1: name: string should match pattern",
        "release.yaml:2: key path of fields[0] is missing",
        "release.yaml:2: unknown key pth of fields[0]; did you mean path?",
        "release.yaml:2: fields[1]: input should be a valid string; given 7 (int)",
        "release.yaml:4: defaults.beam_arcsec has too few values: 3 are needed; given [5.4, 5.4] (list)",
        "release.yaml:5: unknown key freqency_hz of defaults; did you mean frequency_hz?",
        "release.yaml:6: tiling.core_px: input should be greater than 0; given -3 (int)",
        "release.yaml:7: engine.kind: input should be 'ray' or 'local'; given 'rey' (str)",
        "release.yaml:8: unknown key stagez of the release; did you mean stages?",
        "key out of the release is missing",
    ):
        assert any(wanted in line for line in lines), (wanted, lines)


def test_the_hint_lists_what_is_allowed(write):
    error = fault(write(FIRST.replace("core_px", "core_pixels")))
    assert error.message == "release.yaml:4: unknown key core_pixels of tiling; did you mean core_px?"
    assert error.hint == "allowed keys: core_px, halo_px"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (FIRST + "name: again\n", r"release.yaml:9: key name is given twice \(first in line 1\)"),
        ("name: [1, 2\n", r"release.yaml:2: this is not YAML"),
        ("\tname: x\n", "this is not YAML"),
        ("- a\n- b\n", "must hold keys and values, not list"),
        ("", "must hold keys and values, not NoneType"),
        ("? [a, b]\n: 1\n", "release.yaml:1: a key must be a word"),
        ("name: !!python/object/apply:os.system ['true']\n", "release.yaml:1: the tag"),
        ("x: " + "[" * 80 + "]" * 80, "levels"),
        ("x: " + "[" * 9000 + "]" * 9000, "levels"),
        ("name: a\nx: !!float abc\n", "release.yaml:2: 'abc' is no float"),
        ("x: !!bool abc\n", "release.yaml:1: 'abc' is no bool"),
        ("x: !!timestamp abc\n", "release.yaml:1: 'abc' is no timestamp"),
        ("x: " + "9" * 6000 + "\n", "release.yaml:1: '9+' is no int"),
        ("#" * (MAX_BYTES + 1), "has at most"),
    ],
)
def test_what_is_no_release_is_refused(write, text, cause):
    with pytest.raises(ConfigError, match=cause):
        load_config(write(text))


def test_aliases_cannot_grow_without_bound(write):
    text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    text += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    with pytest.raises(ConfigError, match="more than"):
        load_config(write(text))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    error = fault(tmp_path / "absent.yaml")
    assert "absent.yaml cannot be read: No such file" in error.message
    assert "init" in error.hint
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in fault(tmp_path / "bytes.yaml").message


def test_empty_sections_and_stages_mean_their_defaults(write):
    text = "name: x\nfields: ['*.fits']\nout: y\ntiling:\nengine:\nstages:\n  extraction:\n"
    release = load_config(write(text)).release
    assert release.stages == {"extraction": {}}
    assert release.tiling.core_px == 1024


def test_settings_win_over_the_file(write):
    settings = [
        "extraction.seed_snr=6",
        "tiling.core_px=512",
        "seed=3",
        "noise.lag=2",
        "defaults.unit=mJy/beam",
    ]
    config = load_config(write(FIRST), settings=settings, engine="local")
    assert config.release.stages == {"extraction": {"seed_snr": 6, "flood_snr": 3.0}, "noise": {"lag": 2}}
    assert config.release.tiling.core_px == 512
    assert config.release.seed == 3
    assert config.release.engine.kind == "local"
    assert config.release.defaults.frequency_hz == 1.4e9


def test_a_wrong_setting_is_named_as_it_was_given(write):
    path = write(FIRST)
    for settings, words in (
        (["tiling.core_px=-1"], "--set tiling.core_px: tiling.core_px: input should be greater than 0"),
        (["tiling.core_pix=1"], "--set tiling.core_pix: unknown key core_pix of tiling"),
        (["defaults.beam_arcsec=[5, 5]"], "--set defaults.beam_arcsec: defaults.beam_arcsec has too few"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            load_config(path, settings=settings)
        with pytest.raises(ConfigError, match=re.escape(words)):
            config_for_images(["a.fits"], "out", settings=settings)
    config = load_config(path, settings=["extraction.seed_snt=6"])
    with pytest.raises(ConfigError) as caught:
        build_graph(config)
    assert caught.value.message.startswith("--set extraction.seed_snt: unknown key seed_snt of stage")
    assert "did you mean seed_snr" in caught.value.message
    config = load_config(write(FIRST.replace("seed_snr", "seed_snt")), settings=["extraction.flood_snr=2"])
    with pytest.raises(ConfigError, match=r"^release\.yaml:6: unknown key seed_snt"):
        build_graph(config)


def test_a_setting_without_stages_keeps_the_default_stage():
    given = apply_settings({"name": "x"}, ["extraction.seed_snr=6"])
    assert given == {"name": "x", "stages": {"extraction": {"seed_snr": 6}}}
    assert "extraction" in apply_settings({}, ["baseline.threshold=1e1"])["stages"]


def test_settings_leave_the_given_document_as_it_was():
    given = {"stages": {"extraction": {"seed_snr": 5}}}
    apply_settings(given, ["extraction.seed_snr=6", "tiling.core_px=1"])
    assert given == {"stages": {"extraction": {"seed_snr": 5}}}


@pytest.mark.parametrize("setting", ["extraction.seed_snr", "=5", "nothing=5", "extraction..x=1", "seed.x=1"])
def test_a_setting_of_another_form_is_an_error(setting):
    with pytest.raises(ConfigError, match="setting"):
        apply_settings({"seed": 1}, [setting])


def test_images_without_a_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_for_images(["a[1].fits", "s3://b/c.fits"], "my out/", settings=["extraction.seed_snr=6"])
    assert config.release.name == "my-out"
    assert config.out == str(tmp_path / "my out")
    assert config.release.fields == (f"{tmp_path}/a[[]1].fits", "s3://b/c.fits")
    assert config.release.stages == {"extraction": {"seed_snr": 6}}
