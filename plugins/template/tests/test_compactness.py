"""The stage against sources whose answer is known."""

import numpy as np
import pytest
from survey_ml_template.compactness import Compactness, CompactnessOptions
from survey_ml_template.plugin import COMPACTNESS

from survey_ml.field import Beam, Field
from survey_ml.stage import Inputs

CARDS = {
    "NAXIS": "2", "CTYPE1": "'RA---SIN'", "CTYPE2": "'DEC--SIN'", "CRVAL1": "150.0", "CRVAL2": "2.0",
    "CRPIX1": "51.0", "CRPIX2": "51.0", "CDELT1": f"{-1 / 3600}", "CDELT2": f"{1 / 3600}",
}  # fmt: skip
HEADER = "".join(f"{key:<8}= {value:>20}".ljust(80) for key, value in CARDS.items())
FWHM = 10.0


def make_inputs(width: float, x: float = 50.3, y: float = 49.6, background: float = 0.0) -> Inputs:
    """Return a field of 101 x 101 px of 1 arcsec with one round Gaussian of FWHM ``width`` px."""
    rows, columns = np.mgrid[:101, :101]
    image = np.exp(-4 * np.log(2) * ((columns - x) ** 2 + (rows - y) ** 2) / width**2) + background
    field = Field("A", (101, 101), HEADER, Beam(FWHM, FWHM, 0.0), 1.4e9)
    sources = {
        "source_id": np.array([7]),
        "x": np.array([x]),
        "y": np.array([y]),
        "peak_flux": np.array([1.0]),
        "total_flux": np.array([(width / FWHM) ** 2]),
    }
    arrays = {"image": image, "background": np.full_like(image, background)}
    return Inputs(field, None, arrays, {"sources": sources})


def run(inputs: Inputs, **options: float) -> dict[str, float]:
    outputs = Compactness(CompactnessOptions(**options)).run(inputs)
    assert set(outputs) == {product.name for product in COMPACTNESS.writes}
    return {name: values[0] for name, values in outputs["compactness"].items()}


@pytest.mark.parametrize("background", [0.0, 0.2])
def test_a_point_source_has_the_concentration_of_the_beam(background: float) -> None:
    row = run(make_inputs(FWHM, background=background))
    assert row["source_id"] == 7
    assert row["total_to_peak"] == pytest.approx(1.0)
    assert row["concentration"] == pytest.approx(0.5 / (1 - 1 / 16), rel=0.02)


def test_an_extended_source_is_less_concentrated() -> None:
    wide = run(make_inputs(2 * FWHM))
    assert wide["total_to_peak"] == pytest.approx(4.0)
    expected = (1 - 2 ** (-4 * 0.25**2)) / (1 - 2 ** (-4 * 0.5**2))
    assert wide["concentration"] == pytest.approx(expected, rel=0.02)


def test_a_source_at_the_border_has_no_concentration() -> None:
    assert np.isnan(run(make_inputs(FWHM, x=3.0))["concentration"])


def test_no_sources_give_an_empty_table() -> None:
    inputs = make_inputs(FWHM)
    empty = {name: values[:0] for name, values in inputs.tables["sources"].items()}
    outputs = Compactness(CompactnessOptions()).run(
        Inputs(inputs.field, None, inputs.arrays, {"sources": empty})
    )
    assert [len(values) for values in outputs["compactness"].values()] == [0, 0, 0]
