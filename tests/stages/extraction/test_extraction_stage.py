"""Extraction end to end: what is put in comes out, and flags say what is wrong with it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from numpy.testing import assert_allclose, assert_array_equal

from survey_ml.columns import part_columns
from survey_ml.errors import WindowTooSmallError
from survey_ml.field import Tile, Window, split_tiles
from survey_ml.measure import measure_image
from survey_ml.stage import Inputs
from survey_ml.stages.extraction.options import ExtractionOptions
from survey_ml.stages.extraction.settings import (
    BLENDED,
    EDGE,
    MOMENTS,
    POINT_MODEL,
    TOO_LARGE,
    TRUNCATED,
)
from survey_ml.stages.extraction.spec import SPEC
from survey_ml.stages.extraction.stage import Extraction

SHAPE = (420, 440)
HOLE = (slice(150, 190), slice(300, 330))
BORDER = 12
TABLES = {"components": "component_id", "sources": "source_id", "islands": "island_id"}


@pytest.fixture(scope="module")
def acf(beam_covariance):
    """Autocorrelation of `make_noise` with half the beam's covariance: the beam's own shape."""
    v, u = np.mgrid[-9:10, -9:10]
    (a, b), (_, c) = np.linalg.inv(beam_covariance)
    return np.exp(-0.5 * (a * u * u + 2 * b * u * v + c * v * v))


@pytest.fixture(scope="module")
def truth():
    """Points of S/N 20 to 200 on a jittered grid, away from the hole and the border."""
    rng = np.random.default_rng(2)
    rows = []
    for y in range(45, 400, 55):
        for x in range(45, 420, 55):
            if not (130 < y < 210 and 280 < x < 350):
                rows.append((y + rng.uniform(-3, 3), x + rng.uniform(-3, 3), 10 ** rng.uniform(1.3, 2.3)))
    return np.array(rows)


@pytest.fixture(scope="module")
def picture(make_noise, beam_covariance, add_source, truth):
    """rms 1 on a background of 3, a blank hole and border."""
    image = make_noise(SHAPE, beam_covariance / 2, 21) + np.float32(3.0)
    for y, x, peak in truth:
        add_source(image, y, x, peak, beam_covariance)
    image[HOLE] = np.nan
    image[:BORDER] = np.nan
    image[:, :BORDER] = np.nan
    return image


@pytest.fixture(scope="module")
def sky(make_field):
    return make_field(SHAPE)


@pytest.fixture(scope="module")
def result(picture, sky, acf):
    return measure_image(picture, sky, noise_model={"acf": acf.tolist()})


def nearest(table, x, y, radius=1.5):
    """Row of the table nearest to a position, which must be that near."""
    distance = np.hypot(table["x"] - x, table["y"] - y)
    assert distance.min() < radius, f"nothing within {radius} px of {x}, {y}"
    return int(distance.argmin())


def check_tables(result, field):
    """Assert what holds of every result: columns, types, ids, and how tables refer to each other."""
    for name in (*TABLES, "inverted"):
        columns = part_columns(name)
        assert sorted(result[name]) == sorted(column.name for column in columns), name
        for column in columns:
            assert str(result[name][column.name].dtype) == column.dtype, f"{name}.{column.name}"
    for name, key in TABLES.items():
        assert len(np.unique(result[name][key])) == len(result[name][key])
        assert ((result[name][key] >= 0) & (result[name][key] < field.shape[0] * field.shape[1])).all()
    components, sources, islands = (result[name] for name in TABLES)
    assert set(components["source_id"]) == set(sources["source_id"])
    filled = islands["island_id"][islands["n_components"] > 0]
    assert set(components["island_id"]) == set(sources["island_id"]) == set(filled)
    for row, key in enumerate(sources["source_id"]):
        own = components["source_id"] == key
        assert sources["n_components"][row] == own.sum()
        assert_allclose(sources["total_flux"][row], components["total_flux"][own].sum(), rtol=1e-9)
        brightest = np.flatnonzero(own)[components["peak_flux"][own].argmax()]
        assert components["component_id"][brightest] == key
        assert sources["peak_flux"][row] == components["peak_flux"][brightest]
        assert (components["island_id"][own] == sources["island_id"][row]).all()
    for row, key in enumerate(islands["island_id"]):
        assert islands["n_components"][row] == (components["island_id"] == key).sum()


def check_maps(result, image):
    """Assert that image = background + model + residual, and that blank pixels stay blank."""
    data = np.isfinite(image)
    for name in ("background", "rms", "model", "residual"):
        assert result[name].shape == image.shape
        assert result[name].dtype == np.float32
    for name in ("model", "residual"):
        assert_array_equal(np.isfinite(result[name]), data)
    whole = result["model"].astype(float) + result["residual"] + result["background"]
    scale = np.abs(image[data]) + np.abs(result["model"][data]) + np.abs(result["background"][data])
    assert (np.abs(whole[data] - image[data]) <= 4 * np.finfo(np.float32).eps * scale).all()
    mask = result["island_mask"]
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    assert not mask[~data].any()


def test_points_come_out_as_they_were_put_in(result, truth, sky):
    components = result["components"]
    assert len(components["x"]) == len(truth)
    rows = np.array([nearest(components, x, y) for y, x, _ in truth])
    assert len(set(rows)) == len(truth)
    found = {name: values[rows] for name, values in components.items()}
    for value, error, true in (
        (found["peak_flux"], found["peak_flux_err"], truth[:, 2]),
        (found["total_flux"], found["total_flux_err"], truth[:, 2]),
        (found["x"], found["ra_err"] * 1800, truth[:, 1]),
        (found["y"], found["dec_err"] * 1800, truth[:, 0]),
    ):
        pulls = (value - true) / error
        assert abs(np.median(pulls)) < 0.6
        assert 0.6 < 1.4826 * np.median(np.abs(pulls - np.median(pulls))) < 1.5
        assert np.abs(pulls).max() < 6.0
    assert_allclose(found["background"], 3.0, atol=0.4)
    assert_allclose(found["local_rms"], 1.0, atol=0.15)
    assert_allclose(found["snr"], found["peak_flux"] / found["local_rms"])
    assert (found["flags"] & POINT_MODEL > 0).mean() > 0.85
    assert not (found["flags"] & (EDGE | TRUNCATED | BLENDED | MOMENTS | TOO_LARGE)).any()
    expected = sky.wcs.pixel_to_world(found["x"], found["y"])
    assert expected.separation(SkyCoord(found["ra"], found["dec"], unit="deg")).arcsec.max() < 1e-6


def test_tables_and_maps_are_consistent(result, picture, sky):
    check_tables(result, sky)
    check_maps(result, picture)
    assert len(result["inverted"]["x"]) == 0
    # Sources are gone from the residual; what is left is noise.
    data = np.isfinite(picture)
    assert_allclose(np.std(result["residual"][data]), 1.0, atol=0.05)
    assert result["residual"][data].max() < 7.0


def test_the_mask_is_the_islands(result):
    islands, mask = result["islands"], result["island_mask"]
    assert mask.sum() == islands["n_pixels"].sum()
    rows, columns = np.divmod(islands["island_id"], SHAPE[1])
    assert mask[rows, columns].all()
    for row in range(len(rows)):
        box = mask[
            islands["y_min"][row] : islands["y_max"][row] + 1,
            islands["x_min"][row] : islands["x_max"][row] + 1,
        ]
        assert box.sum() >= islands["n_pixels"][row]
        for side in (box[0], box[-1], box[:, 0], box[:, -1]):
            assert side.any()
    inside = (rows >= islands["y_min"]) & (rows <= islands["y_max"])
    assert (inside & (columns >= islands["x_min"]) & (columns <= islands["x_max"])).all()


def test_the_cut_is_half_a_source_flagged(make_noise, beam_covariance, add_source, make_field, acf):
    """On the border, at a hole and at the image's own edge."""
    image = make_noise(SHAPE, beam_covariance / 2, 22)
    places = {"border": (BORDER - 0.4, 200.0), "hole": (170.0, 299.4), "image": (250.0, 438.8)}
    near, far = (BORDER + 2.8, 100.0), (300.0, 220.0)
    for y, x in (*places.values(), near, far):
        add_source(image, y, x, 60.0, beam_covariance)
    image[HOLE] = np.nan
    image[:BORDER] = np.nan
    field = make_field(SHAPE)
    result = measure_image(image, field, noise_model={"acf": acf.tolist()})
    check_tables(result, field)
    check_maps(result, image)
    components, islands = result["components"], result["islands"]
    for name, (y, x) in places.items():
        flags = components["flags"][nearest(components, x, y, 3.0)]
        assert flags & EDGE, name
        assert flags & TRUNCATED, name
        row = np.argmin(np.hypot(islands["x_min"] - x, islands["y_min"] - y))
        assert islands["flags"][row] & EDGE, name
    row = nearest(components, near[1], near[0])
    assert components["flags"][row] & EDGE
    assert_allclose(components["peak_flux"][row], 60.0, atol=6.0)
    assert not components["flags"][nearest(components, far[1], far[0])] & (EDGE | TRUNCATED)


@pytest.mark.parametrize("depth", [1.2, 2.5])
def test_the_flank_of_a_source_outside_the_image_is_an_island_only(
    make_noise, beam_covariance, add_source, make_field, acf, depth
):
    """Beyond a blank border and beyond the image's own edge; a source around a small hole stays."""
    image = make_noise(SHAPE, beam_covariance / 2, 23)
    outside = [(BORDER - depth, 200.0), (250.0, SHAPE[1] - 1 + depth)]
    around = (170.0, 299.4)
    for y, x in (*outside, around):
        add_source(image, y, x, 200.0, beam_covariance)
    image[:BORDER] = np.nan
    image[170, 299] = np.nan
    field = make_field(SHAPE)
    result = measure_image(image, field, noise_model={"acf": acf.tolist()})
    check_tables(result, field)
    check_maps(result, image)
    components, islands = result["components"], result["islands"]
    assert len(components["x"]) == 1
    assert_allclose([components["y"][0], components["x"][0]], around, atol=0.1)
    assert_allclose(components["peak_flux"][0], 200.0, atol=8.0)
    assert sorted(islands["n_components"]) == [0, 0, 1]
    assert (islands["flags"] & EDGE).all()


def test_blends_are_separated_flagged_and_joined(make_noise, beam_covariance, add_source, make_field, acf):
    """A pair within the beams' widths is one source of two components, a pair with a dip is two."""
    image = make_noise(SHAPE, beam_covariance / 2, 23)
    close, apart = ((100.0, 100.0), (100.0, 103.2)), ((300.0, 200.0), (300.0, 205.5))
    for (y, x), peak in zip((*close, *apart), (80.0, 50.0, 80.0, 50.0), strict=True):
        add_source(image, y, x, peak, beam_covariance)
    field = make_field(SHAPE)
    result = measure_image(image, field, noise_model={"acf": acf.tolist()})
    check_tables(result, field)
    components, sources = result["components"], result["sources"]
    one, two = (nearest(components, x, y) for y, x in close)
    assert components["source_id"][one] == components["source_id"][two] == components["component_id"][one]
    assert components["flags"][one] & components["flags"][two] & BLENDED
    assert_allclose(components["peak_flux"][[one, two]], [80.0, 50.0], atol=6.0)
    row = np.flatnonzero(sources["source_id"] == components["source_id"][one])[0]
    assert sources["n_components"][row] == 2
    assert_allclose(sources["total_flux"][row], 130.0, atol=6.0)
    flux = components["total_flux"][[one, two]]
    for axis in "xy":
        centre = (components[axis][[one, two]] * flux).sum() / flux.sum()
        assert_allclose(sources[axis][row], centre, rtol=1e-9)
    assert sources["major"][row] > components["major"][[one, two]].max()
    # The sum is better known than a sum of independent errors says: the two are anticorrelated.
    assert sources["total_flux_err"][row] < np.hypot(*components["total_flux_err"][[one, two]])
    one, two = (nearest(components, x, y) for y, x in apart)
    assert components["island_id"][one] == components["island_id"][two]
    assert components["source_id"][one] != components["source_id"][two]


def test_an_extended_source_keeps_its_flux_and_shape(
    make_noise, beam_covariance, add_source, make_field, acf
):
    image = make_noise(SHAPE, beam_covariance / 2, 24)
    extra = np.array([[9.0, 3.0], [3.0, 4.0]])
    wide = beam_covariance + extra
    add_source(image, 200.3, 210.7, 40.0, wide)
    result = measure_image(image, make_field(SHAPE), noise_model={"acf": acf.tolist()})
    components = result["components"]
    row = nearest(components, 210.7, 200.3)
    total = 40.0 * np.sqrt(np.linalg.det(wide) / np.linalg.det(beam_covariance))
    assert components["resolved"][row]
    assert not components["flags"][row] & POINT_MODEL
    assert abs(components["total_flux"][row] - total) < 4 * components["total_flux_err"][row]
    assert components["total_flux_err"][row] < 0.1 * total
    # Pixels are 2 arcsec; east is to the left.
    sizes, vectors = np.linalg.eigh(extra)
    expected = np.sqrt(sizes[::-1] * 8 * np.log(2)) * 2.0
    angle = np.degrees(np.arctan2(-vectors[0, 1], vectors[1, 1])) % 180
    for name, value in zip(("dc_major", "dc_minor"), expected, strict=True):
        assert abs(components[name][row] - value) < 4 * components[f"{name}_err"][row]
    assert abs((components["dc_pa"][row] - angle + 90) % 180 - 90) < 12.0


def test_a_huge_diffuse_blob_gets_moments_in_bounded_time(
    make_noise, beam_covariance, add_source, make_field, acf
):
    shape = (640, 640)
    image = make_noise(shape, beam_covariance / 2, 25)
    y, x = np.indices(shape)
    # An edge too sharp for the background to follow, over ripples that make many peaks.
    disc = 25.0 / (1.0 + np.exp((np.hypot(y - 320, x - 320) - 150.0) / 3.0))
    image += (disc * (1.0 + 0.3 * np.sin(y / 5.0) * np.sin(x / 6.0))).astype(np.float32)
    add_source(image, 60.0, 60.0, 50.0, beam_covariance)
    field = make_field(shape)
    options = ExtractionOptions(max_island_px=5000, mesh_step_px=200, mesh_box_px=600)
    start = time.process_time()
    result = measure_image(image, field, options, noise_model={"acf": acf.tolist()})
    assert time.process_time() - start < 30.0
    check_tables(result, field)
    check_maps(result, image)
    islands, components = result["islands"], result["components"]
    big = islands["n_pixels"].argmax()
    assert islands["n_pixels"][big] > 20000
    assert islands["flags"][big] & TOO_LARGE
    own = components["island_id"] == islands["island_id"][big]
    assert (components["flags"][own] & TOO_LARGE > 0).all()
    rest = own & (components["flags"] & MOMENTS > 0)
    assert rest.sum() == 1
    # What the moments hold makes the total of the components that of the pixels.
    assert_allclose(components["total_flux"][own].sum(), islands["total_flux"][big], rtol=0.05)
    for name in ("peak_flux_err", "total_flux_err", "ra_err", "dec_err"):
        assert (components[name][rest] > 0.0).all()
    row = nearest(components, 60.0, 60.0)
    assert not components["flags"][row] & (TOO_LARGE | MOMENTS)


def test_an_image_of_noise_is_empty_but_whole(make_noise, beam_covariance, make_field, acf):
    image = make_noise(SHAPE, beam_covariance / 2, 26)
    field = make_field(SHAPE)
    result = measure_image(
        image, field, {"seed_snr": 8.0, "inverted": True}, noise_model={"acf": acf.tolist()}
    )
    check_tables(result, field)
    check_maps(result, image)
    assert all(len(values) == 0 for name in (*TABLES, "inverted") for values in result[name].values())
    assert not result["model"].any()
    assert not result["island_mask"].any()


def run_tile(image, field, acf, tile, options=None):
    inputs = Inputs(
        field, tile, {"image": image[tile.window.slices]}, summaries={"noise_model": {"acf": acf.tolist()}}
    )
    return Extraction(options or ExtractionOptions()).run(inputs)


def test_a_window_without_data_gives_empty_products(make_field, acf):
    field = make_field(SHAPE)
    image = np.full(SHAPE, np.nan, np.float32)
    stage = Extraction(ExtractionOptions())
    for tile in split_tiles(SHAPE, 220, stage.halo(field)):
        result = run_tile(image, field, acf, tile)
        assert set(result) == {product.name for product in SPEC.writes}
        check_tables(result, field)
        check_maps(result, image[tile.core.slices])
        assert len(result["components"]["x"]) == 0
        assert np.isnan(result["rms"]).all()


def test_an_inverted_image_holds_the_negative_sources(
    make_noise, beam_covariance, add_source, make_field, acf
):
    image = make_noise(SHAPE, beam_covariance / 2, 27)
    add_source(image, 100.0, 120.0, 40.0, beam_covariance)
    add_source(image, 300.0, 320.0, -30.0, beam_covariance)
    field = make_field(SHAPE)
    noise = {"acf": acf.tolist()}
    plain = measure_image(image, field, noise_model=noise)
    asked = measure_image(image, field, {"inverted": True}, noise_model=noise)
    check_tables(asked, field)
    assert len(plain["inverted"]["x"]) == 0
    inverted = asked["inverted"]
    row = nearest(inverted, 320.0, 300.0)
    assert abs(inverted["peak_flux"][row] - 30.0) < 4 * inverted["peak_flux_err"][row]
    assert np.hypot(inverted["x"] - 120.0, inverted["y"] - 100.0).min() > 10.0
    for name in TABLES:
        for column, values in plain[name].items():
            assert_array_equal(values, asked[name][column])


def test_a_core_gets_its_own_islands_only_and_asks_for_room(picture, sky, acf, result):
    """A window that shows too little is refused; one that shows enough gives the rows of its core."""
    core = Window(200, 300, 180, 290)
    with pytest.raises(WindowTooSmallError) as refused:
        run_tile(picture, sky, acf, Tile("0_0", core, core.grow(8, SHAPE)))
    assert refused.value.halo >= Extraction(ExtractionOptions()).halo(sky)
    tile = Tile("0_0", core, core.grow(refused.value.halo, SHAPE))
    part = run_tile(picture, sky, acf, tile)
    rows, columns = np.divmod(result["islands"]["island_id"], SHAPE[1])
    owned = (rows >= 200) & (rows < 300) & (columns >= 180) & (columns < 290)
    assert 0 < owned.sum() < len(owned)
    assert set(part["islands"]["island_id"]) == set(result["islands"]["island_id"][owned])
    for name in ("model", "residual", "background", "rms", "island_mask"):
        assert_array_equal(part[name], result[name][core.slices])


def test_the_unit_of_the_image_does_not_matter(picture, sky, acf, result):
    """Multiplying the image multiplies every brightness and nothing else."""
    scaled = measure_image(picture * np.float32(2.0**-12), sky, noise_model={"acf": acf.tolist()})
    for column, values in result["components"].items():
        flux = column in {
            "peak_flux",
            "total_flux",
            "peak_flux_err",
            "total_flux_err",
            "local_rms",
            "background",
        }
        assert_allclose(scaled["components"][column], values * (2.0**-12 if flux else 1), rtol=1e-6)
