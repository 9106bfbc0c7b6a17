"""Components of a simulated sky: points, slightly resolved sources, doubles, triples, diffuse ones."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from survey_ml.simulation.counts import draw_fluxes

Array = NDArray[np.float64]

POINT, RESOLVED, LOBE, CORE, DIFFUSE = range(5)
KINDS = ("point", "resolved", "lobe", "core", "diffuse")
"""Kind of a component by its code."""

ARCSEC = np.pi / 180.0 / 3600.0


@dataclass(frozen=True)
class Components:
    """Gaussian components before the beam, one array entry each.

    Attributes
    ----------
    source : (n,) array of int64
        Number of the source it belongs to.
    kind : (n,) array of int8
        Index into `KINDS`.
    x, y : (n,) array
        Zero-based pixels.
    flux : (n,) array
        Jy.
    major, minor : (n,) array
        Intrinsic FWHM in arcsec; zero for points.
    pa : (n,) array
        deg, north through east.
    """

    source: NDArray[np.int64]
    kind: NDArray[np.int8]
    x: Array
    y: Array
    flux: Array
    major: Array
    minor: Array
    pa: Array

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Components:
        """Return the chosen components."""
        return Components(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def join(cls, parts: list[Components]) -> Components:
        """Return all components of several sets, ordered by source."""
        columns = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        order = np.argsort(columns["source"], kind="stable")
        return cls(**{name: values[order] for name, values in columns.items()})


def make_points(source: NDArray[np.int64], x: Array, y: Array, flux: Array) -> Components:
    """Return point components."""
    zero = np.zeros(len(x))
    return Components(source, np.full(len(x), POINT, np.int8), x, y, flux, zero, zero, zero)


def draw_sky(
    rng: np.random.Generator,
    shape: tuple[int, int],
    pixel_scale: float,
    *,
    faintest: float = 10e-6,
    brightest: float = 1.0,
) -> Components:
    """Draw the components of a realistic sky.

    Kinds follow from one uniform deviate u a source: doubles and triples where the flux is above
    0.3 mJy and u < 0.12, diffuse above 1 mJy where 0.12 <= u < 0.14, slightly resolved for the rest
    with u < 0.40, points otherwise.

    Parameters
    ----------
    rng : Generator
    shape : tuple of int
        ``(ny, nx)``.
    pixel_scale : float
        arcsec.
    faintest, brightest : float
        Limits of the flux densities in Jy.
    """
    area = shape[0] * shape[1] * (pixel_scale * ARCSEC) ** 2
    flux = draw_fluxes(rng, area, faintest=faintest, brightest=brightest)
    n = len(flux)
    source = np.arange(n, dtype=np.int64)
    y = rng.uniform(-0.5, shape[0] - 0.5, n)
    x = rng.uniform(-0.5, shape[1] - 0.5, n)
    u = rng.random(n)
    double = (flux > 0.3e-3) & (u < 0.12)
    diffuse = (flux > 1e-3) & (u >= 0.12) & (u < 0.14)
    resolved = (u < 0.40) & ~double & ~diffuse
    point = ~(double | diffuse | resolved)
    return Components.join(
        [
            make_points(source[point], x[point], y[point], flux[point]),
            _draw_resolved(rng, source[resolved], x[resolved], y[resolved], flux[resolved]),
            _draw_diffuse(rng, source[diffuse], x[diffuse], y[diffuse], flux[diffuse]),
            _draw_doubles(rng, source[double], x[double], y[double], flux[double], pixel_scale),
        ]
    )


def draw_grid(
    rng: np.random.Generator,
    rms: NDArray[np.float32],
    *,
    spacing: int = 64,
    jitter: float = 0.5,
    snr: tuple[float, float] = (3.0, 300.0),
) -> Components:
    """Place isolated points on a grid, with peaks log-uniform in units of the local rms.

    Parameters
    ----------
    rng : Generator
    rms : (ny, nx) array
        Jy/beam; its shape is the image's.
    spacing : int
        Pixels.
    jitter : float
        Largest shift in pixels along each axis, so that all pixel phases occur.
    snr : tuple of float
        Range of peak over local rms.
    """
    ny, nx = rms.shape
    half = spacing // 2
    rows, columns = np.meshgrid(
        np.arange(half, ny - half + 1, spacing), np.arange(half, nx - half + 1, spacing), indexing="ij"
    )
    n = rows.size
    y = rows.ravel() + rng.uniform(-jitter, jitter, n)
    x = columns.ravel() + rng.uniform(-jitter, jitter, n)
    ratio = np.exp(rng.uniform(np.log(snr[0]), np.log(snr[1]), n))
    local = rms[np.rint(y).astype(int).clip(0, ny - 1), np.rint(x).astype(int).clip(0, nx - 1)]
    return make_points(np.arange(n, dtype=np.int64), x, y, ratio * local.astype(np.float64))


def _draw_resolved(
    rng: np.random.Generator, source: NDArray[np.int64], x: Array, y: Array, flux: Array
) -> Components:
    n = len(x)
    major = np.minimum(2.0 * (flux * 1e3) ** 0.3 * np.exp(rng.normal(0.0, 0.6, n)), 30.0)
    minor = major * rng.uniform(0.2, 1.0, n)
    kind = np.full(n, RESOLVED, np.int8)
    return Components(source, kind, x, y, flux, major, minor, rng.uniform(0.0, 180.0, n))


def _draw_diffuse(
    rng: np.random.Generator, source: NDArray[np.int64], x: Array, y: Array, flux: Array
) -> Components:
    n = len(x)
    major = rng.uniform(25.0, 90.0, n)
    minor = major * rng.uniform(0.4, 1.0, n)
    kind = np.full(n, DIFFUSE, np.int8)
    raised = flux * rng.uniform(1.0, 3.0, n)
    return Components(source, kind, x, y, raised, major, minor, rng.uniform(0.0, 180.0, n))


def _draw_doubles(
    rng: np.random.Generator,
    source: NDArray[np.int64],
    x: Array,
    y: Array,
    flux: Array,
    pixel_scale: float,
) -> Components:
    """Two lobes on either side, bent to the same side; half of them get a core."""
    n = len(x)
    separation = np.minimum(
        18.0 * np.maximum(flux * 1e3, 0.3) ** 0.25 * np.exp(rng.normal(0.0, 0.5, n)), 240.0
    )
    pa = rng.uniform(0.0, 180.0, n)
    bend = rng.normal(0.0, 0.15, n) * separation
    split = rng.uniform(0.3, 0.7, n)
    cored = rng.random(n) < 0.5
    core_flux = np.where(cored, flux * rng.uniform(0.05, 0.40, n), 0.0)
    along = -np.sin(np.radians(pa)), np.cos(np.radians(pa))
    aside = along[1], -along[0]
    parts = []
    for sign, share in ((0.5, split), (-0.5, 1.0 - split)):
        size = np.minimum(0.3 * separation * np.exp(rng.normal(0.0, 0.4, n)), 60.0)
        step, shift = sign * separation / pixel_scale, bend / pixel_scale
        parts.append(
            Components(
                source,
                np.full(n, LOBE, np.int8),
                x + step * along[0] + shift * aside[0],
                y + step * along[1] + shift * aside[1],
                (flux - core_flux) * share,
                size,
                size * rng.uniform(0.4, 1.0, n),
                pa,
            )
        )
    zero = np.zeros(int(cored.sum()))
    kind = np.full(len(zero), CORE, np.int8)
    parts.append(Components(source[cored], kind, x[cored], y[cored], core_flux[cored], zero, zero, zero))
    return Components.join(parts)
