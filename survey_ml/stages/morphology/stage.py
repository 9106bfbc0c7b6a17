"""The morphology stage: classes of sources, by a trained model that looks at their cutouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Setting
from pydantic import field_validator

from survey_ml import morphology_flags as flags
from survey_ml.errors import ConfigError
from survey_ml.field import Field
from survey_ml.learning.preparation import COARSE_BEAM, COARSE_PIXEL
from survey_ml.learning.preprocessing import Preprocessing, clip_image, fit_image, measure_noise
from survey_ml.stage import Inputs, LazyArray, Options, Stage, Table
from survey_ml.stages.morphology.cutouts import Cutout, cut_sources
from survey_ml.stages.morphology.extent import Extent, find_extent
from survey_ml.stages.morphology.sampling import Sampling, Target, plan_sampling
from survey_ml.stages.morphology.windows import exceeds, find_shift, find_window, place_islands

if TYPE_CHECKING:
    from survey_ml.models.classifier import Classifier, Predictions

SUFFIX = ".safetensors"
"""End of a model's file."""

HELD = 256
"""Cutouts in memory at once."""

LEAST_PIXELS = 500
"""Pixels with data that the noise is measured from; with fewer the source's own local rms is taken."""


def tell_path_from_name(model: object) -> object:
    """Return what an option says of a model: a path is relative to the YAML, a name to nothing."""
    if isinstance(model, str) and ("/" in model or model.endswith(SUFFIX)):
        return Path(model).expanduser()
    return model


class MorphologyOptions(Options):
    """Which model classifies sources, and how much sky around each it is shown."""

    model: Path | str = "mirabest-d4"
    """A model by its name (see `survey-ml models list`), or a file or folder with one."""
    cutout_arcsec: float | None = Setting(None, gt=0.0)
    """Side of the square around a source that the model is shown; all that it can look at (270 for the
    built-in ones) when not given."""
    centre: Literal["extent", "position"] = "extent"
    """What is in the middle: that of all islands that belong to the source, or the position of the source."""
    shown: Literal["all", "islands", "source"] = "all"
    """What the model is shown: all that is above the clip, as in its training; only islands, without noise
    peaks; or only the islands that belong to the source."""
    batch_size: int = Setting(64, ge=1, le=4096)
    """Sources that the model is handed at once; no result depends on it."""

    _tell_path = field_validator("model", mode="before")(tell_path_from_name)

    def files(self) -> Mapping[str, Path]:
        """Return the model's file, under its name.

        Raises
        ------
        ConfigError
            When there is no such model, or what runs one is not installed.
        """
        require_libraries("morphology")
        from survey_ml.models.registry import find_model

        found = find_model(self.model)
        return {found.name: found.path}


@cache
def require_libraries(stage: str) -> None:
    """Say before any work that the libraries for models are missing."""
    missing = [name for name in ("safetensors", "torch") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"stage {stage} needs {' and '.join(missing)}, which is not installed",
            f"pip install 'survey-ml[learning]', or take {stage} out of stages",
            stage=stage,
        )


@dataclass(frozen=True)
class Views:
    """What a model is shown of some sources.

    Attributes
    ----------
    rows : (m,) array of int64
        Their numbers in the table of sources.
    pixels : (m, side, side) array of float32
        Cutouts, about the middle of their sources, in the unit of the image; NaN where there is no data.
    images : (m, side, side) array of float32
        The same clipped and scaled from 0 to 1.
    flags : (m,) array of int32
        See `survey_ml.morphology_flags`.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.float32]
    images: NDArray[np.float32]
    flags: NDArray[np.int32]


_View = tuple[int, NDArray[np.float32], NDArray[np.float32], int]
"""One row of `Views`."""


class Morphology(Stage):
    """Classify the sources of a tile with a trained model.

    The noise that a cutout is clipped by is 1.4826 times the median absolute deviation in a square of
    twice its side. The published images were made so: it gives their pixels with a median correlation
    of 0.9997 and a 5th percentile of 0.995 (600 FIRST fields, `benchmarks.first_labels`); the local rms
    of the extraction gives 0.9994 and 0.986, the deviation in the cutout itself, which a large source
    fills, 0.9992 and 0.981 (120 of them).
    It also holds after smoothing, which the rms of the extraction does not.

    The middle of a cutout is that of all islands that belong to its source, see `find_extent`.
    """

    options_type: ClassVar[type[Options]] = MorphologyOptions
    classifier: Classifier

    def setup(self) -> None:
        """Load the model.

        Raises
        ------
        ConfigError
            When there is none, it cannot be run here, or it cannot look at so much sky.
        InputError
            When its file is damaged.
        """
        from survey_ml.models.classifier import load_classifier

        require_libraries("morphology")
        options = cast(MorphologyOptions, self.options)
        self.classifier = load_classifier(options.model, threads=1)
        wanted = self.classifier.card.preprocessing
        widest = wanted.side * wanted.pixel_arcsec
        if options.cutout_arcsec is not None and options.cutout_arcsec > widest * 1.01:
            raise ConfigError(
                f"cutout_arcsec is {options.cutout_arcsec:g}, model {self.classifier.card.name} looks at "
                f"{widest:g} arcsec",
                f"give {widest:g} or less, or leave it out",
                stage="morphology",
            )

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Classify the tile's sources.

        Parameters
        ----------
        inputs : Inputs
            ``image`` (the whole field), ``sources`` and ``islands`` (the tile's).

        Returns
        -------
        mapping
            The tables ``morphology`` and ``morphology_features``, in the order of the sources, and
            ``morphology_model``, what is to be known of the model.
        """
        if inputs.field is None:
            raise ValueError("morphology works on the sources of one tile")
        sources = inputs.tables["sources"]
        n = len(sources["source_id"])
        options = cast(MorphologyOptions, self.options)
        model = self.classifier
        # What a model gives for no image at all says how long its vectors are.
        nothing = model.predict(np.zeros((0, self._wanted.side, self._wanted.side), np.float32))
        found = _Found(n, nothing)
        for views in self.show(inputs.arrays["image"], inputs.field, sources, inputs.tables["islands"]):
            found.take(views, model.predict(views.images, options.batch_size))
        return {**found.tables(sources, model), "morphology_model": self._describe()}

    @property
    def _wanted(self) -> Preprocessing:
        return self.classifier.card.preprocessing

    def show(
        self,
        image: LazyArray,
        field: Field,
        sources: Table,
        islands: Table,
        rows: NDArray[np.int64] | None = None,
    ) -> Iterator[Views]:
        """Yield what the model is shown of sources; see `show_sources`."""
        options = cast(MorphologyOptions, self.options)
        return show_sources(self._wanted, options, image, field, (sources, islands), rows)

    def _describe(self) -> dict[str, Any]:
        card = self.classifier.card
        return {
            "name": card.name,
            "version": card.version,
            "hash": self.classifier.hash,
            "classes": list(card.classes),
            "runtime": self.classifier.runtime,
            "temperature": card.temperature,
            "licence": card.licence,
            "preprocessing": asdict(card.preprocessing),
            "cutouts": self.options.model_dump(include={"cutout_arcsec", "centre", "shown"}),
            "path": self._locate(),
        }

    def _locate(self) -> str:
        """Return where a model lies that is not known by its name, for what lies beside it."""
        from survey_ml.models.registry import find_model

        model = cast(MorphologyOptions, self.options).model
        return str(find_model(model).path.absolute()) if isinstance(model, Path) else ""


class _Found:
    """The columns of all sources of a tile, filled bit by bit."""

    def __init__(self, n: int, like: Predictions) -> None:
        self.flags = np.full(n, flags.NO_DATA, np.int32)
        self.probabilities, self.logits, self.embedding = (
            np.full((n, values.shape[1]), np.nan, np.float32)
            for values in (like.probabilities, like.logits, like.embedding)
        )

    def take(self, views: Views, predictions: Predictions) -> None:
        """Put in what a model says of some sources; nothing of those without data."""
        self.flags[views.rows] = views.flags
        known = (views.flags & flags.NO_DATA) == 0
        for mine, theirs in (
            (self.probabilities, predictions.probabilities),
            (self.logits, predictions.logits),
            (self.embedding, predictions.embedding),
        ):
            mine[views.rows[known]] = theirs[known]

    def tables(self, sources: Table, model: Classifier) -> dict[str, Table]:
        """Return both tables."""
        n = len(self.flags)
        classes = np.array(["", *model.classes], dtype=np.str_)
        known = np.isfinite(self.probabilities).all(axis=1)
        best = np.zeros(n, np.int64)
        best[known] = self.probabilities[known].argmax(axis=1) + 1
        number = np.asarray(sources["source_id"], np.int64)
        columns = {
            f"morph_p_{name.lower()}": np.ascontiguousarray(self.probabilities[:, k])
            for k, name in enumerate(model.classes)
        }
        return {
            "morphology": {
                "source_id": number,
                "morph_class": classes[best],
                **columns,
                "morph_model": np.full(n, model.label),
                "morph_flags": self.flags,
            },
            "morphology_features": {
                "source_id": number,
                "morph_logits": self.logits,
                "morph_embedding": self.embedding,
            },
        }


def show_sources(
    wanted: Preprocessing,
    options: MorphologyOptions,
    image: LazyArray,
    field: Field,
    tables: tuple[Table, Table],
    rows: NDArray[np.int64] | None = None,
) -> Iterator[Views]:
    """Yield what a model is shown of sources, a handful at a time.

    Parameters
    ----------
    wanted : Preprocessing
        Of the model.
    options : MorphologyOptions
        How much sky is cut out, and how.
    image : LazyArray
        Of the whole field.
    field : Field
    tables : tuple of Table
        Sources and islands, as extraction writes them.
    rows : array of int, optional
        Numbers of the sources to show; all when not given. One whose position is not on the
        image's sky is never shown.
    """
    sources, islands = tables
    side = wanted.side
    if options.cutout_arcsec is not None:
        side = min(side, max(1, round(options.cutout_arcsec / wanted.pixel_arcsec)))
    target = Target(wanted.pixel_arcsec, wanted.beam_arcsec, side)
    sampling = plan_sampling(field, sources["x"], sources["y"], target)
    of_source = _flag_sources(field, sources, sampling, target)
    boxes = place_islands(sources, islands, sampling)
    # What is not smoothed to the model's beam has its own.
    beam = max(field.beam.major, target.beam_arcsec), max(field.beam.minor, target.beam_arcsec)
    held: list[_View] = []
    # Twice as wide, so that the middle of a source can be anywhere in the cutout about its position.
    for wide in cut_sources(image, sampling, 2 * side, rows):
        noise = _measure_level(wide, side, float(sources["local_rms"][wide.row]))
        extent = find_extent(
            wide.pixels,
            noise,
            wanted.clip_sigma,
            pixel_arcsec=wanted.pixel_arcsec,
            beam=beam,
            frequency=field.frequency,
        )
        shift = find_shift(extent, side) if options.centre == "extent" else (0, 0)
        window = find_window(side, shift)
        made, flag = _prepare(wide, extent, window, noise, wanted, options.shown)
        flag |= int(of_source[wide.row])
        if extent.n_islands > 1:
            flag &= ~flags.UNRESOLVED
        if exceeds(boxes[wide.row], shift, side) or extent.own.sum() > extent.own[window].sum():
            flag |= flags.TOO_LARGE
        held.append((wide.row, wide.pixels[window].copy(), made, flag))
        if len(held) == HELD:
            yield _stack(held)
            held = []
    if held:
        yield _stack(held)


def _measure_level(wide: Cutout, side: int, local_rms: float) -> float:
    """Return the noise around a source; the local rms where it cannot be measured."""
    enough = np.isfinite(wide.pixels[find_window(side, (0, 0))]).sum() >= LEAST_PIXELS
    noise = measure_noise(wide.around) if enough else 0.0
    # Of few pixels the noise is not known; that of an image without noise is zero.
    return local_rms if not noise > 0.0 and local_rms > 0.0 else noise


def _prepare(
    wide: Cutout,
    extent: Extent,
    window: tuple[slice, slice],
    noise: float,
    wanted: Preprocessing,
    shown: str,
) -> tuple[NDArray[np.float32], int]:
    """Return what the model is shown of a cutout, and the flags of its pixels."""
    pixels, inside, own = wide.pixels[window], wide.inside[window], extent.own[window]
    has_data = np.isfinite(pixels)
    flag = 0 if inside.all() else flags.EDGE
    if not has_data.any():
        return np.zeros((wanted.side, wanted.side), np.float32), flag | flags.NO_DATA
    if not has_data[inside].all():
        flag |= flags.BLANK
    if shown == "source" and extent.n_islands:
        pixels = np.where(own, pixels, np.float32(0.0))
    elif shown != "all":
        pixels = np.where(extent.islands[window], pixels, np.float32(0.0))
    clipped = clip_image(pixels, noise, wanted.clip_sigma, subtract=wanted.subtract_clip)
    made, _ = fit_image(clipped, wanted.side)
    if not made.any():
        return made, flag | flags.EMPTY
    peak = float(np.nanmax(pixels, where=own, initial=0.0))
    if peak < flags.FAINT_SIGMA * noise:
        flag |= flags.FAINT
    if extent.n_islands and float(np.nanmax(pixels, initial=0.0)) > peak:
        flag |= flags.OUTSHONE
    return made, flag


def _flag_sources(field: Field, sources: Table, sampling: Sampling, target: Target) -> NDArray[np.int32]:
    """Return the flags that follow from the catalogue and the field, without pixels."""
    found = np.zeros(len(sources["source_id"]), np.int32)
    point = ~np.asarray(sources["resolved"], bool) & (np.asarray(sources["n_components"]) == 1)
    found[point] |= flags.UNRESOLVED
    beam = np.sqrt(field.beam.major * field.beam.minor)
    coarse = sampling.scale > COARSE_PIXEL * target.pixel_arcsec
    found[coarse | (beam > COARSE_BEAM * target.beam_arcsec)] |= flags.COARSE
    return found


def _stack(held: list[_View]) -> Views:
    rows, pixels, images, flag = zip(*held, strict=True)
    return Views(np.array(rows, np.int64), np.stack(pixels), np.stack(images), np.array(flag, np.int32))
