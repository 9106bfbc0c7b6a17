"""A small release made of real radio galaxies and simulated noise, with an exact truth.

Like FIRST: 1.8 arcsec pixels, a 5.4 arcsec beam that the headers do not mention, 0.14 mJy/beam of
noise that rises outwards, blank borders. Two of the fields overlap; the last one has a beam twice as wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from survey_ml.data.galaxies import Galaxy, load_galaxies
from survey_ml.data.sky import TRUTH_UNITS, make_header, write_table
from survey_ml.errors import ConfigError
from survey_ml.field import Beam, Field
from survey_ml.simulation.counts import draw_fluxes
from survey_ml.simulation.geometry import convolve_peaks, make_covariances
from survey_ml.simulation.noise import draw_noise, vary_rms
from survey_ml.simulation.rendering import FLOOR, render_gaussians
from survey_ml.simulation.sky import make_cards
from survey_ml.simulation.sources import ARCSEC

PIXEL_SCALE = 1.8
FREQUENCY = 1.4e9
RMS = 0.14e-3
BEAM = Beam(5.4, 5.4, 0.0)
OTHER_BEAM = Beam(12.0, 10.0, 30.0)
"""Twice as wide, as between surveys: what a model was made for is not what it is shown there."""
FAINTEST = 0.1e-3
"""Jy, of the points that are injected; fainter ones drown in the noise."""

BRIGHTEST_GALAXY = 0.04
"""Jy/beam; in a brighter one the steps of an 8-bit image would show above the noise."""

CELL = 300
"""Pixels; one galaxy a cell of this grid, as large as the published images."""

REFERENCE_SHIFT = (0.15, -0.10)
"""arcsec to the east and north, of the reference catalogue from the truth."""

REFERENCE_SCALE = 0.97
"""Fluxes of the reference catalogue over those of the truth."""

BORDER = 12
"""Blank pixels along each side; beyond 0.62 widths from the middle all is blank."""

YAML = """\
# Fields like those of the FIRST survey: real radio galaxies and simulated points in simulated noise.
name: first-demo
fields: ["fields/*.fits"]
# What headers lack. The last of three fields or more has a beam in its header, and that one counts.
defaults: {{beam_arcsec: [5.4, 5.4, 0.0], frequency_hz: 1.4e9, unit: Jy/beam}}
tiling: {{core_px: {core}, halo_px: 128}}
stages:
  extraction: {{seed_snr: 5.0, flood_snr: 3.0}}
{more}truth: truth.parquet
# Off on purpose, so that the report has something to find:
# {shift}.
reference_catalogue: reference.csv
seed: {seed}
out: release
"""


YAML_MODEL = """\
  morphology: {{model: {model}}}
  uncertainty: {{coverage: 0.9}}
  shift: {{}}
  shift_release: {{}}
"""


@dataclass(frozen=True)
class Canvas:
    """A piece of sky on one pixel grid, and the fields cut from it.

    Attributes
    ----------
    shape : tuple of int
    centre : tuple of float
        deg, of the middle.
    beam : Beam
    columns : tuple of int
        First column of each field.
    """

    shape: tuple[int, int]
    centre: tuple[float, float]
    beam: Beam
    columns: tuple[int, ...]


def make_demo_release(
    folder: str | Path, seed: int = 1, size: int = 1536, n_fields: int = 4, *, model: str = ""
) -> Path:
    """Write fields, truth, a reference catalogue and the YAML of a release.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there; files of an earlier call are replaced.
    seed : int
        The same seed gives the same pixels.
    size : int
        Pixels a side of each field, at least 384.
    n_fields : int
        The first two overlap by a quarter; the last of three or more has another beam.
    model : str
        Model by which the morphology of sources is classified; empty for none.

    Returns
    -------
    Path
        Of the YAML.

    Raises
    ------
    ConfigError
        When firstgalaxydata is not installed, or the numbers are out of range.
    """
    if size < 384 or n_fields < 1:
        raise ConfigError(f"{n_fields} fields of {size} px cannot be made", "use 1 field of 384 px or more")
    galaxies = load_galaxies()
    base = Path(folder)
    (base / "fields").mkdir(parents=True, exist_ok=True)
    for old in (base / "fields").glob("*.fits"):
        old.unlink()
    parts: list[dict[str, NDArray]] = []
    canvases = _plan_canvases(size, n_fields)
    number = 0
    for canvas, sequence in zip(canvases, np.random.SeedSequence(seed).spawn(len(canvases)), strict=True):
        rng = np.random.default_rng(sequence)
        names = [f"demo_{number + k + 1}" for k in range(len(canvas.columns))]
        number += len(names)
        parts.append(_make_canvas(rng, canvas, size, names, galaxies, base / "fields"))
    truth = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    truth = {"id": np.arange(len(truth["ra"]), dtype=np.int64), **truth}
    write_table(base / "truth.parquet", truth, TRUTH_UNITS)
    _write_reference(base / "reference.csv", truth, np.random.default_rng([seed, 1]))
    path = base / "release.yaml"
    core = 512 if size > 512 else 256
    more = YAML_MODEL.format(model=model) if model else ""
    path.write_text(YAML.format(core=core, seed=seed, shift=describe_shift(), more=more))
    return path


def describe_shift() -> str:
    """Say how the reference catalogue is off."""
    east, north = REFERENCE_SHIFT
    return (
        f'{east:+.2f}" in right ascension, {north:+.2f}" in declination, its fluxes times {REFERENCE_SCALE}'
    )


def _plan_canvases(size: int, n_fields: int) -> list[Canvas]:
    """Put the first two fields side by side with an overlap, the others a degree and more apart."""
    pair = min(n_fields, 2)
    step = size - size // 4
    canvases = [Canvas((size, size + (pair - 1) * step), (180.0, 30.0), BEAM, (0, step)[:pair])]
    for k in range(2, n_fields):
        beam = OTHER_BEAM if k == n_fields - 1 else BEAM
        canvases.append(Canvas((size, size), (180.0 + 5.0 * k, 30.0 + 3.0 * k), beam, (0,)))
    return canvases


def _make_canvas(
    rng: np.random.Generator,
    canvas: Canvas,
    size: int,
    names: list[str],
    galaxies: list[Galaxy],
    folder: Path,
) -> dict[str, NDArray]:
    """Fill a canvas with sources, write its fields, and return its truth."""
    fields = [
        _describe(canvas, name, column, size) for name, column in zip(names, canvas.columns, strict=True)
    ]
    # The least rms of the fields that show a pixel; infinite where none does.
    least = np.full(canvas.shape, np.inf, np.float32)
    rms = vary_rms((size, size), RMS)
    rms[_find_blank(size)] = np.nan
    owner = np.full(canvas.shape, -1, np.int8)
    for k, column in enumerate(canvas.columns):
        part = least[:, column : column + size]
        better = rms < part
        owner[:, column : column + size][better] = k
        part[better] = rms[better]
    sky = np.zeros(canvas.shape, np.float32)
    points = _add_points(rng, sky, canvas)
    extended = _add_galaxies(rng, sky, canvas, galaxies, np.isfinite(least))
    for field, column in zip(fields, canvas.columns, strict=True):
        b = _covariance(canvas.beam)
        image = draw_noise(rng, (size, size), b) * rms + sky[:, column : column + size]
        header = make_header(field)
        if canvas.beam == BEAM:
            for key in ("BMAJ", "BMIN", "BPA", "RESTFRQ"):
                del header[key]
        fits.PrimaryHDU(image, header).writeto(folder / f"{field.name}.fits", overwrite=True)
    truth = {name: np.concatenate([points[name], extended[name]]) for name in points}
    x, y = truth.pop("x"), truth.pop("y")
    place = np.rint(y).astype(int), np.rint(x).astype(int)
    local = least[place].astype(np.float64)
    positions = np.asarray(fields[0].wcs.all_pix2world(np.stack([x, y], axis=1), 0))
    truth |= {
        "ra": positions[:, 0],
        "dec": positions[:, 1],
        "local_rms": local,
        "snr": truth["peak_flux"] / local,
        "field": np.array(names, dtype=object)[owner[place]],
    }
    shown = np.isfinite(local)
    return {name: values[shown] for name, values in truth.items()}


def _describe(canvas: Canvas, name: str, column: int, size: int) -> Field:
    """Return a field of the canvas, whose reference pixel is the canvas's middle."""
    reference = 0.5 * (canvas.shape[1] + 1) - column, 0.5 * (canvas.shape[0] + 1)
    cards = make_cards((size, size), PIXEL_SCALE, canvas.centre, reference)
    return Field(name, (size, size), "".join(card.ljust(80) for card in cards), canvas.beam, FREQUENCY)


def _covariance(beam: Beam) -> NDArray[np.float64]:
    major, minor, pa = np.array([[beam.major], [beam.minor], [beam.pa]])
    return np.asarray(make_covariances(major, minor, pa, PIXEL_SCALE)[0])


def _find_blank(size: int) -> NDArray[np.bool_]:
    """Return where a field has no data: a border, and corners cut off by a circle."""
    middle = np.abs(np.arange(size) - 0.5 * (size - 1))
    edge = middle > 0.5 * size - BORDER
    return edge[:, None] | edge[None, :] | (np.hypot(middle[:, None], middle[None, :]) > 0.62 * size)


def _add_points(rng: np.random.Generator, sky: NDArray[np.float32], canvas: Canvas) -> dict[str, NDArray]:
    """Draw points from the counts and return their part of the truth."""
    ny, nx = canvas.shape
    flux = draw_fluxes(rng, ny * nx * (PIXEL_SCALE * ARCSEC) ** 2, faintest=FAINTEST)
    n, beam = flux.size, _covariance(canvas.beam)
    x, y = rng.uniform(-0.5, nx - 0.5, n), rng.uniform(-0.5, ny - 0.5, n)
    none = np.zeros((n, 3))
    render_gaussians(sky, x, y, convolve_peaks(flux, none, beam), none + beam, FLOOR)
    return {
        "kind": np.full(n, "point", dtype=object),
        "x": x,
        "y": y,
        "total_flux": flux,
        "peak_flux": flux,
        "extent": np.zeros(n),
    }


def _add_galaxies(
    rng: np.random.Generator,
    sky: NDArray[np.float32],
    canvas: Canvas,
    galaxies: list[Galaxy],
    valid: NDArray[np.bool_],
) -> dict[str, NDArray]:
    """Put one galaxy into each cell of a grid where it lies on pixels with data."""
    rows: list[tuple[str, float, float, float, float, float]] = []
    ny, nx = canvas.shape
    kinds = sorted({galaxy.kind for galaxy in galaxies})
    by_kind = [[galaxy for galaxy in galaxies if galaxy.kind == kind] for kind in kinds]
    for k, (top, left) in enumerate(
        (top, left) for top in range(0, ny - CELL + 1, CELL) for left in range(0, nx - CELL + 1, CELL)
    ):
        choices = by_kind[k % len(by_kind)]
        galaxy = choices[rng.integers(len(choices))]
        image = _observe(galaxy, canvas.beam, int(rng.integers(8)))
        free = max(1, CELL - image.shape[0]), max(1, CELL - image.shape[1])
        y0, x0 = top + int(rng.integers(free[0])), left + int(rng.integers(free[1]))
        if y0 + image.shape[0] > ny or x0 + image.shape[1] > nx:
            continue
        window = slice(y0, y0 + image.shape[0]), slice(x0, x0 + image.shape[1])
        bright = image > 0.2 * galaxy.clip
        if not valid[window][bright].all():
            continue
        # The clip was at 3 sigma of an image like these: that gives the true scale.
        peak = min(3.0 * RMS / galaxy.clip, BRIGHTEST_GALAXY)
        sky[window] += np.float32(peak) * image
        y, x = np.nonzero(bright)
        weight = image[bright].astype(np.float64)
        cy, cx = float(np.average(y, weights=weight)), float(np.average(x, weights=weight))
        reach = float(np.hypot(y - cy, x - cx).max()) * PIXEL_SCALE + 0.5 * canvas.beam.major
        area = canvas.beam.solid_angle / PIXEL_SCALE**2
        total = peak * float(image.sum(dtype=np.float64)) / area
        rows.append((galaxy.kind, x0 + cx, y0 + cy, total, peak * float(image.max()), reach))
    columns = [np.array(values) for values in zip(*rows, strict=True)] if rows else [np.empty(0)] * 6
    names = ("kind", "x", "y", "total_flux", "peak_flux", "extent")
    truth = dict(zip(names, columns, strict=True))
    truth["kind"] = truth["kind"].astype(object)
    return truth


def _observe(galaxy: Galaxy, beam: Beam, turn: int) -> NDArray[np.float32]:
    """Turn a galaxy by one of the eight symmetries of the square and see it with another beam.

    The images have a beam of 5.4 arcsec already; a wider one needs the difference of the
    covariances, and more flux falls into it.

    Returns
    -------
    (ny, nx) array of float32
        Jy/beam of this beam for a peak of 1 Jy/beam in the original.
    """
    image = np.rot90(galaxy.image, turn % 4)
    image = image if turn < 4 else image[:, ::-1]
    missing = _covariance(beam) - _covariance(BEAM)
    if not missing.any():
        return np.ascontiguousarray(image)
    # Three standard deviations of what is missing: nothing may come round to the other side.
    image = np.pad(image, max(8, int(np.ceil(3.0 * np.sqrt(max(missing[0], missing[2]))))))
    v, u = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :]
    phase = missing[0] * u * u + 2.0 * missing[1] * u * v + missing[2] * v * v
    wide = np.fft.irfft2(np.fft.rfft2(image) * np.exp(-2.0 * np.pi**2 * phase), s=image.shape)
    wide[wide < 1e-4] = 0.0
    return (wide * (beam.solid_angle / BEAM.solid_angle)).astype(np.float32)


def _write_reference(path: Path, truth: dict[str, NDArray], rng: np.random.Generator) -> None:
    """Write what another survey would list: bright compact sources, shifted and scattered."""
    compact = (truth["extent"] < 15.0) & (truth["snr"] > 8.0)
    chosen = np.flatnonzero(compact & (rng.random(compact.size) < 0.7))
    n = chosen.size
    scatter = rng.normal(0.0, 1.0, (3, n))
    if n:
        # Of a hundred rows the median scatters visibly: without it, the report finds what was put in.
        scatter -= np.median(scatter, axis=1, keepdims=True)
    east, north = (shift + 0.2 * part for shift, part in zip(REFERENCE_SHIFT, scatter, strict=False))
    dec = truth["dec"][chosen] + north / 3600.0
    ra = truth["ra"][chosen] + east / 3600.0 / np.cos(np.radians(dec))
    peak = truth["peak_flux"][chosen] * REFERENCE_SCALE * np.exp(0.05 * scatter[2])
    rows = np.stack([ra, dec, peak], axis=1)
    np.savetxt(
        path, rows, fmt=("%.7f", "%.7f", "%.6e"), delimiter=",", header="ra,dec,peak_flux", comments=""
    )
