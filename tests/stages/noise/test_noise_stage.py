"""The noise stage: patches all over the field, read one at a time."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from survey_ml.field import Beam, Field
from survey_ml.stage import Inputs
from survey_ml.stages.noise.autocorrelation import shape_gaussian
from survey_ml.stages.noise.beam import find_covariance, project_beam
from survey_ml.stages.noise.stage import Noise, NoiseOptions, measure_autocorrelation, spread_patches

REAL = Path(os.environ.get("SURVEY_ML_DATA", Path(__file__).parents[3] / "../shared/data"))


class CountingArray:
    """An array that notes how much of it is read."""

    def __init__(self, data):
        self.data, self.shape, self.dtype = data, data.shape, data.dtype
        self.read = 0
        self.largest = 0

    def __getitem__(self, index):
        part = self.data[index]
        self.read += part.size
        self.largest = max(self.largest, part.size)
        return part


def test_the_beam_of_the_field_in_pixels(make_field, beam_covariance):
    np.testing.assert_allclose(project_beam(make_field((400, 400))), beam_covariance, rtol=1e-6)


def test_position_angle_runs_from_north_through_east():
    covariance = find_covariance(Beam(10.0, 2.0, 30.0))
    values, vectors = np.linalg.eigh(covariance)
    east, north = vectors[:, 1]
    assert np.isclose(np.degrees(np.arctan2(east, north)) % 180, 30.0)
    np.testing.assert_allclose(np.sqrt(values * 8 * np.log(2)), [2.0, 10.0])


def test_the_stage_returns_a_json_model(make_noise, make_field, beam_covariance):
    field = make_field((700, 900))
    image = CountingArray(make_noise(field.shape, beam_covariance / 2, 1) * np.float32(2e-5))
    outputs = Noise(NoiseOptions(patches=20)).run(Inputs(field, arrays={"image": image}, seed=5))
    model = json.loads(json.dumps(outputs["noise_model"], allow_nan=False))
    assert set(outputs) == {"noise_model"}
    assert model["n_patches"] == 20
    assert model["source"] == "measured"
    assert np.isclose(model["rms"], 2e-5, rtol=0.03)
    acf = np.array(model["acf"])
    assert acf.shape == (2 * model["lag"] + 1,) * 2
    assert np.abs(acf - shape_gaussian(beam_covariance, model["lag"])).max() < 0.03
    assert image.read < 0.6 * image.data.size
    assert image.largest < 160**2


def test_same_seed_same_model(make_noise, make_field, beam_covariance):
    field = make_field((900, 900))
    image = make_noise(field.shape, beam_covariance / 2, 2)
    one, two, other = (
        measure_autocorrelation(image, field, n_patches=5, seed=seed).acf for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_blank_parts_are_passed_over(make_noise, make_field, beam_covariance):
    field = make_field((1536, 1536))
    image = make_noise(field.shape, beam_covariance / 2, 3)
    y, x = np.mgrid[:1536, :1536]
    image[np.hypot(y - 768, x - 768) > 500] = np.nan
    model = measure_autocorrelation(image, field, n_patches=16)
    assert model.n_patches == 16
    assert np.abs(model.acf - shape_gaussian(beam_covariance, model.lag)).max() < 0.04


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_field_without_noise_gets_the_beam(make_field, value):
    field = make_field((300, 300))
    model = measure_autocorrelation(np.full(field.shape, value, np.float32), field)
    assert model.source == "beam"


@pytest.mark.parametrize("shape", [(40, 40), (300, 300), (1000, 700), (20000, 15000)])
def test_patches_cover_the_field_evenly_and_once(shape):
    windows = spread_patches(shape, 128, 64, seed=3)
    assert len(set(windows)) == len(windows) <= 64
    for w in windows:
        assert 0 <= w.y0 < w.y1 <= shape[0]
        assert 0 <= w.x0 < w.x1 <= shape[1]
        assert max(w.shape) <= 200
    if len(windows) == 64:
        halves = [(w.y0 > shape[0] / 2, w.x0 > shape[1] / 2) for w in windows]
        assert all(10 <= halves.count((a, b)) <= 22 for a in (True, False) for b in (True, False))
    else:
        assert sum(w.shape[0] * w.shape[1] for w in windows) == shape[0] * shape[1]


@pytest.mark.real
def test_first_fields_give_a_sensible_model():
    """Nearest-pixel resampling loosens neighbours; the width stays near that of the beam."""
    folder = REAL / "first_fields"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set SURVEY_ML_DATA")
    from astropy.io import fits
    from astropy.wcs import WCS

    for path in sorted(folder.glob("*.fits.fz"))[::75]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path) as hdus:
                image = np.squeeze(hdus[1].data).astype(np.float32)
                header = WCS(hdus[1].header).celestial.to_header().tostring()
        field = Field(path.name, image.shape, header, Beam(5.4, 5.4, 0.0), 1.4e9)
        model = measure_autocorrelation(image, field)
        k = model.lag
        assert model.source == "measured"
        assert 0.4 < model.acf[k, k + 1] < 0.8
        assert abs(model.acf[k, k + 6]) < 0.25
        assert 3 < model.acf[k - 3 : k + 4, k - 3 : k + 4].sum() < 20
