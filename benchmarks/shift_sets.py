"""Images of known shifts from what a model was trained on, and what it makes of them.

The clip of firstgalaxydata's images was taken off, that of MiraBest's was not: catalogues of the first are
compared among each other. NVSS images of FR-DEEP have pixels of 15 arcsec and a beam of 45, and are brought
to the model's 1.8 arcsec.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from survey_ml.data.labelled.reading import read_labelled
from survey_ml.labelled import LabelledImages
from survey_ml.learning.preparation import FWHM, match_scale
from survey_ml.learning.preprocessing import fit_image, prepare_images
from survey_ml.learning.shift_sources import Sources
from survey_ml.learning.splits import find_neighbours
from survey_ml.models.classifier import Classifier
from survey_ml.models.shift import describe_images

NVSS_PIXEL, NVSS_BEAM = 15.0, 45.0
"""arcsec."""
FAINTEST = 0.03
"""Of smoothed images less than this share of the peak is empty sky again."""


@dataclass(frozen=True, eq=False)
class Known:
    """Sources of a set, and the reference that they are held against."""

    sources: Sources
    reference: str

    @property
    def accuracy(self) -> float:
        """Share of right classes."""
        return float((self.sources.probabilities.argmax(axis=1) == self.sources.labels).mean())


def embed_sets(classifier: Classifier) -> dict[str, Known]:
    """Return the sets by name, FRI and FRII only.

    ``held out`` are MiraBest's Confident and Uncertain test images, ``training`` its Confident training
    images, and ``catalogue`` MiraBest's images in firstgalaxydata.
    """
    side = classifier.card.preprocessing.side
    everything = read_labelled("mirabest", "no-hybrid")
    sure = read_labelled("mirabest", "confident", "train")
    trained = np.isin(everything.names, sure.names)

    def embed(data: LabelledImages, reference: str, images: NDArray[np.float32] | None = None) -> Known:
        images = prepare_images(data, side) if images is None else images
        found = describe_images(classifier, images, labels=data.labels)
        if data.subtracted:
            del found.covariates["signal_to_noise"]  # type: ignore[attr-defined]
        return Known(found, reference)

    held = everything.take(everything.split == "test")
    unseen = everything.take(~trained)
    nvss = read_labelled("frdeep-nvss")
    found = {
        "held out": embed(held, "held out"),
        "training": embed(everything.take(trained), "held out"),
        "never seen": embed(unseen, "held out"),
        "FIRST at 45 arcsec": embed(held, "held out", smooth_to_nvss(prepare_images(held, side), classifier)),
        "FR-DEEP FIRST": embed(read_labelled("frdeep-first"), "held out"),
        "FR-DEEP NVSS": embed(nvss, "held out", zoom(nvss, classifier)),
    }
    galaxies = read_labelled("firstgalaxy")
    galaxies = galaxies.take(galaxies.labels < 2)
    galaxies = LabelledImages(
        galaxies.images, galaxies.labels, galaxies.classes[:2], galaxies.names, galaxies.ra, galaxies.dec,
        galaxies.split, galaxies.subtracted,
    )  # fmt: skip
    source = np.array([name.rpartition("_")[2] for name in galaxies.names.tolist()])
    near = np.zeros(len(galaxies), bool)
    near[find_neighbours(galaxies.ra, galaxies.dec, sure.ra, sure.dec)[0][:, 0]] = True
    for name, chosen in {
        "catalogue": source == "MiraBest",
        "Gendre": (source == "Gendre") & ~near,
        "Capetti": np.char.startswith(source, "Capetti") & ~near,
    }.items():
        found[name] = embed(galaxies.take(chosen), "catalogue")
    return found


def smooth(images: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return images with a wider beam, scaled to their maximum again."""
    wide = gaussian_filter(images, (0.0, sigma, sigma))
    wide /= np.maximum(wide.max(axis=(1, 2), keepdims=True), 1e-9)
    wide[wide < FAINTEST] = 0.0
    return np.asarray(wide, np.float32)


def smooth_to_nvss(images: NDArray[np.float32], classifier: Classifier) -> NDArray[np.float32]:
    """Return images with the model's pixels and beam as with the beam of NVSS."""
    own = classifier.card.preprocessing
    return smooth(images, float(np.sqrt(NVSS_BEAM**2 - own.beam_arcsec**2) / FWHM / own.pixel_arcsec))


def zoom(data: LabelledImages, classifier: Classifier) -> NDArray[np.float32]:
    """Return NVSS images with the model's pixels."""
    wanted = classifier.card.preprocessing
    made = []
    for image in data.images:
        scaled = match_scale(image.astype(np.float32) / 255.0, wanted, NVSS_PIXEL, NVSS_BEAM)
        one = np.clip(np.nan_to_num(fit_image(scaled, wanted.side)[0]), 0.0, None)
        one[one < FAINTEST * one.max()] = 0.0
        made.append(one / max(float(one.max()), 1e-9))
    return np.stack(made).astype(np.float32)
