"""Speed, bias and scatter of the background, rms and island search on a simulated sky.

Run: ``python benchmarks/background.py [--size 4096] [--json]``. Times are CPU seconds of one core,
the best of a few runs after compilation. The sky holds beam-correlated noise whose rms is known at
each pixel, and point sources down to far below the noise with a slope like that of deep counts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from survey_ml.stages.extraction.background import choose_mesh, measure_background, support_radius
from survey_ml.stages.extraction.islands import find_islands

AXES = (4.0, 3.2, 35.0)
"""Beam in pixels and degrees."""


def make_sky(size: int, seed: int, with_sources: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return an image and its true rms: noise whose autocorrelation is the beam, and point sources."""
    rng = np.random.default_rng(seed)
    angle = np.deg2rad(AXES[2])
    along, across = np.array([-np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
    covariance = (AXES[0] ** 2 * np.outer(along, along) + AXES[1] ** 2 * np.outer(across, across)) / 5.5452
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    form = covariance[0, 0] * fx**2 + 2 * covariance[0, 1] * fx * fy + covariance[1, 1] * fy**2
    half = np.exp(-(np.pi**2) * form).astype(np.float32)
    noise = fft.irfft2(fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) * half)
    noise /= noise.std()
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    rms = np.exp(2.2 * ((x - 0.45) ** 2 + (y - 0.55) ** 2))
    rms += 0.15 * np.sin(6 * np.pi * x) * np.sin(5 * np.pi * y)
    rms = 2e-5 * np.clip(rms, 0.8, 3).astype(np.float32)
    image = noise * rms
    if with_sources:
        # 4,700 a Mpix above 10 uJy, slope 1.7 in integral counts, up to 0.3 Jy.
        count = rng.poisson(4.7e-3 * size * size)
        peaks = np.minimum(1e-5 * rng.random(count) ** (-1 / 1.7), 0.3)
        points = np.zeros((size, size), dtype=np.float32)
        np.add.at(points, tuple(rng.integers(0, size, (2, count))), peaks)
        area = 2 * np.pi * np.sqrt(np.linalg.det(covariance))
        image += area * fft.irfft2(fft.rfft2(points) * half * half)
    return image.astype(np.float32), rms


def time_call(call: Callable[[], Any], repeat: int = 3) -> tuple[float, Any]:
    """Return the least CPU seconds of a few calls, and the result."""
    best = np.inf
    for _ in range(repeat + 1):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return best, result


def measure(size: int, seed: int) -> list[dict[str, Any]]:
    """Measure noise alone and noise with sources."""
    rows = []
    for name, with_sources in (("noise", False), ("sky", True)):
        image, truth = make_sky(size, seed, with_sources)
        mesh = choose_mesh(float(np.sqrt(AXES[0] * AXES[1])), image.shape)
        seconds, (background, rms) = time_call(
            lambda image=image, mesh=mesh: measure_background(image, origin=(0, 0), **mesh._asdict())
        )
        flood, (_, islands) = time_call(lambda i=image, b=background, r=rms: find_islands(i, b, r))
        low, median, high = np.percentile(rms / truth, [16, 50, 84])
        rows.append(
            {
                "image": name,
                "megapixels": round(image.size / 1e6, 1),
                "mesh": mesh._asdict(),
                "support_px": support_radius(mesh.step, mesh.box),
                "background_cpu_s": round(seconds, 3),
                "background_mpix_s": round(image.size / seconds / 1e6, 1),
                "islands": len(islands),
                "islands_cpu_s": round(flood, 3),
                "islands_mpix_s": round(image.size / flood / 1e6, 1),
                "rms_ratio_median": round(float(median), 4),
                "rms_ratio_half_width": round(float(high - low) / 2, 4),
                "background_over_rms_median": round(float(np.median(background / truth)), 4),
                "background_over_rms_std": round(float(np.std(background / truth)), 4),
            }
        )
    return rows


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.size, arguments.seed)
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("\n".join(f"{key:28} {value}" for key, value in row.items()), end="\n\n")


if __name__ == "__main__":
    main()
