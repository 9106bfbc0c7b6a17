from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from survey_ml.columns import columns_of
from survey_ml.data.catalogues import read_catalogue
from survey_ml.errors import InputError
from survey_ml.export.schema import make_table
from survey_ml.report.page import make_section
from survey_ml.report.panels.counts import (
    choose_edges,
    compare_counts,
    count_sources,
    find_area,
    show_counts,
)
from survey_ml.report.panels.distributions import show_distributions
from survey_ml.report.panels.fields import show_fields
from survey_ml.report.panels.gallery import show_gallery
from survey_ml.report.panels.reference import show_reference
from survey_ml.report.panels.sky import shorten
from survey_ml.report.panels.summary import show_summary
from survey_ml.report.panels.timings import show_timings
from survey_ml.report.panels.truth import add_noise, show_truth
from survey_ml.report.spec import PANELS
from survey_ml.report.style import (
    format_seconds,
    format_value,
    label_plainly,
    make_figure,
    make_grid,
    stretch,
)


def changed(context, **values):
    return dataclasses.replace(context, **values)


@pytest.mark.parametrize("name", [spec.name for spec in PANELS])
def test_panels_do_without_rows(context, name):
    tables = {kind: make_table({}, columns_of(kind)) for kind in ("sources", "components", "islands")}
    spec = next(spec for spec in PANELS if spec.name == name)
    section = make_section(spec, changed(context, tables=tables))
    assert section is None or not section.failed, section.body


@pytest.mark.parametrize("name", [spec.name for spec in PANELS])
def test_panels_do_with_a_finder_of_peaks(context, name):
    components = context.tables["components"]
    columns = columns_of("peaks")
    data = {c.name: context.column("components", c.name) for c in columns if c.name != "peak_id"}
    peaks = make_table(data | {"peak_id": np.arange(len(components))}, columns)
    spec = next(spec for spec in PANELS if spec.name == name)
    section = make_section(spec, changed(context, tables={"peaks": peaks}))
    assert section is None or not section.failed, section.body


def test_captions_say_what_is_counted_and_what_colours_are(context):
    truth, gallery = show_truth(context).body, show_gallery(context).body
    assert "Components are counted here" in truth and "Detected components" in truth
    assert "Orange: components" in gallery and "Red:" not in gallery
    assert "do not follow the counts of the average sky" in show_counts(context).body
    assert "compilation" in show_timings(context).body
    assert "lie on 1 exactly" in show_distributions(context).body


@pytest.mark.parametrize(("low", "high"), [(0.78, 1.22), (0.5, 1.6), (0.96, 1.03), (0.31, 1.3)])
def test_a_short_logarithmic_axis_has_a_tick_at_1(low, high):
    _, (axis,) = make_figure()
    axis.set(xscale="log", xlim=(low, high))
    label_plainly(axis.xaxis)
    labels = [axis.xaxis.get_major_formatter()(value) for value in axis.xaxis.get_majorticklocs()]
    assert "1" in labels


def test_the_summary_counts_what_is_there(context):
    body = show_summary(context).body
    for table in ("sources", "components", "islands"):
        assert f"<b>{format_value(len(context.tables[table]))}</b>" in body
    assert "set aside" in body


def test_fields_are_all_listed(context):
    body = show_fields(context).body
    for name in context.release.fields:
        count = int((context.column("sources", "field") == name).sum())
        assert f">{count}</td>" in body


def test_many_fields_are_thinned(context, monkeypatch):
    monkeypatch.setattr("survey_ml.report.context.MOST_FIGURES", 1)
    thinned = changed(context)
    assert thinned.shown == (context.release.fields[0],)
    assert "1 field is drawn" in show_fields(thinned).body


def test_completeness_is_that_of_the_validation_code(context):
    body = show_truth(context).body
    assert "truth.fits" in body
    shares = [float(s) for s in re.findall(r"above 50</td>\s*<td[^>]*>\s*([\d.]+) %", body)]
    assert shares and shares[0] > 90


def test_noise_of_a_truth_is_looked_up_in_the_maps(context):
    truth = read_catalogue("truth.fits", context.base, ("ra", "dec"))
    bare = {c: truth[c] for c in ("ra", "dec", "peak_flux")}
    elsewhere = {"ra": [10.0], "dec": [-60.0], "peak_flux": [1.0]}
    both = {c: np.append(bare[c], elsewhere[c]) for c in bare}
    snr = add_noise(context, both)["snr"]
    assert snr[-1] == 0
    known = truth["peak_flux"] / truth["local_rms"]
    inside = snr[:-1] > 0
    assert inside.mean() > 0.8
    assert np.median(snr[:-1][inside] / known[inside]) == pytest.approx(1, abs=0.1)


def test_the_reference_agrees_with_the_truth_it_was_made_of(context):
    body = show_reference(context).body
    assert "have a counterpart" in body and "reference.csv" in body
    assert (
        show_reference(
            changed(context, config=context.config.model_copy(update={"reference_catalogue": None}))
        )
        is None
    )


def test_a_reference_that_is_not_there_is_named(context):
    with pytest.raises(InputError, match=r"nowhere\.fits"):
        read_catalogue("nowhere.fits", context.base, ("ra",))
    with pytest.raises(InputError, match="unknown format"):
        read_catalogue("list.docx", context.base, ("ra",))
    with pytest.raises(InputError, match="no column flux_of_it"):
        read_catalogue("reference.csv", context.base, ("ra", "flux_of_it"))


def test_units_of_a_reference_are_taken_to_jansky(tmp_path):
    from astropy.table import Table

    table = Table(
        {"RA": [1.0], "Dec": [2.0], "Peak_flux": [3.0], "note": ["a"]}, units={"Peak_flux": "mJy/beam"}
    )
    for name in ("t.fits", "t.vot"):
        table.write(tmp_path / name, format="votable" if name.endswith("vot") else None)
        back = read_catalogue(name, tmp_path, ("ra", "dec", "peak_flux"))
        assert back["peak_flux"] == pytest.approx([0.003])
        assert back["note"].tolist() == ["a"]


def test_extended_sources_are_cut_out(context):
    panel = show_gallery(context)
    assert panel is not None and "<img" in panel.body


def test_area_is_where_the_peak_is_above_the_threshold():
    rms, area = np.array([3.0, 1.0, 2.0]), np.array([0.5, 1.0, 2.0])
    found = find_area(np.array([4.9, 5.0, 10.0, 99.0]), 5.0, rms, area)
    assert found.tolist() == [0.0, 1.0, 3.0, 3.5]


def test_counts_of_a_euclidean_sky_are_flat():
    rng = np.random.default_rng(1)
    flux = 1e-3 * rng.random(200_000) ** (-1 / 1.5)  # dN/dS ~ S^-2.5
    edges = choose_edges(flux)
    count, value, error = count_sources(flux, np.full(len(flux), 10.0), edges)
    density = len(flux) / (10.0 * np.deg2rad(1) ** 2) * 1.5 * 1e-3**1.5
    good = count > 100
    assert good.sum() >= 8
    # Bins of a fifth of a decade, with the geometric mean as their middle.
    np.testing.assert_allclose(value[good], density, rtol=0.1)
    np.testing.assert_allclose(error[good], value[good] / np.sqrt(count[good]), rtol=1e-6)
    assert edges[0] <= flux.min() and edges[-1] >= flux.max()


def test_hopkins_counts_scale_with_frequency():
    # The published value at 1 mJy is 10^0.859.
    assert compare_counts(np.array([1e-3]), 1.4e9)[0] == pytest.approx(10**0.859)
    scale = (0.7 / 1.4) ** -0.7
    assert compare_counts(np.array([1e-3 * scale]), 0.7e9)[0] == pytest.approx(10**0.859 * scale**1.5)


def test_the_stretch_shows_noise_and_bright_sources():
    image = np.random.default_rng(0).normal(0, 1, (200, 200)).astype(np.float32)
    image[100, 100], image[0, 0] = 1000, np.nan
    shown = stretch(image)
    assert np.isnan(shown[0, 0]) and shown[100, 100] == 1
    assert 0.1 < np.nanmedian(shown) < 0.5
    assert np.isnan(stretch(np.full((3, 3), np.nan))).all()
    assert np.isfinite(stretch(np.ones((3, 3)))).all()


def test_numbers_and_names_are_short():
    assert format_value(1234567) == "1 234 567"
    assert format_value(0.0123456) == "0.0123"
    assert format_value(float("nan")) == "–"
    assert [format_seconds(s) for s in (0.01, 5, 61, 7300)] == ["0.01 s", "5.0 s", "1 min 1 s", "2 h 1 min"]
    assert shorten("short") == "short"
    assert len(shorten("x" * 200)) == 30


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 12])
def test_grids_have_as_many_axes_as_images(n):
    figure, axes = make_grid(n)
    assert len(axes) == n == len(figure.axes)
