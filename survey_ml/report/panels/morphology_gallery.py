"""The sources whose class is most certain and most doubtful, and where the model looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from survey_ml.errors import SurveyMLError
from survey_ml.graph import resolve_paths
from survey_ml.morphology_flags import OF_SOURCE
from survey_ml.plugins import get_manager, load_factory
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, render
from survey_ml.report.panels.morphology import read_model, read_probabilities
from survey_ml.report.style import ORANGE, make_figure, stretch
from survey_ml.validation.labels import find_doubtful

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EACH = 3
"""Most certain sources of each class."""
_DOUBTFUL = 6
_ACROSS = 3
"""Sources in a row of figures, each with two pictures."""
_SOURCE = ("source_id", "island_id", "n_components", "x", "y", "local_rms", "resolved")


@dataclass(frozen=True)
class _Shown:
    """A source as the model sees it.

    Attributes
    ----------
    pixels, image : (side, side) array
        The cutout, and what the model is given.
    attention : (h, w) array or None
    start, step : float
        First edge and side of a pixel of the attention, in pixels of the cutout from its first edge.
    """

    pixels: NDArray[Any]
    image: NDArray[Any]
    attention: NDArray[Any] | None
    start: float
    step: float
    pixel_arcsec: float


class _FieldImage:
    """The image of a field, blank in tiles that were set aside."""

    def __init__(self, context: Context, field: str) -> None:
        self._context, self._field = context, field
        self.shape = context.release.field(field).info.shape

    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[Any]:
        return self._context.read(self._field, "image", index)


def show_morphology_gallery(context: Context) -> Panel | None:
    """Return pictures of sources and of the model's attention, where the stage morphology has run."""
    model = read_model(context)
    if model is None or not len(context.column("sources", "morph_class")):
        return None
    certain, doubtful = choose_sources(context, model["classes"])
    groups = {"Most certain": certain, "Most doubtful": doubtful}
    return _show_groups(context, model, "Certain and doubtful classes", groups)


def show_uncertainty_gallery(context: Context) -> Panel | None:
    """Return pictures of the sources with the largest entropies, where the stage uncertainty has run."""
    model = read_model(context)
    entropy = context.column("sources", "unc_entropy")
    if model is None or not len(entropy):
        return None
    flags = context.column("sources", "morph_flags").astype(np.int64)
    rows = np.flatnonzero(context.is_best & ((flags & ~OF_SOURCE) == 0) & np.isfinite(entropy))
    order = rows[np.argsort(-entropy[rows].astype(np.float64), kind="stable")]
    chosen = _take_islands(context, order, _DOUBTFUL, set())
    return _show_groups(context, model, "Most uncertain classes", {"Most uncertain": chosen})


def show_shift_gallery(context: Context) -> Panel | None:
    """Return pictures of the sources least like the model's reference, where the stage shift has run."""
    model = read_model(context)
    strange = context.column("shift_objects", "shift_strangeness")
    if model is None or not len(strange):
        return None
    names = ("field", "source_id")
    keys = zip(*(context.column("sources", name).tolist() for name in names), strict=True)
    place = {key: row for row, key in enumerate(keys)}
    told = list(zip(*(context.column("shift_objects", name).tolist() for name in names), strict=True))
    values = np.nan_to_num(strange.astype(np.float64), nan=-np.inf)
    order = [place[told[k]] for k in np.argsort(-values, kind="stable").tolist() if told[k] in place]
    best = np.array([row for row in order if context.is_best[row]], np.int64)
    chosen = _take_islands(context, best, _DOUBTFUL, set())
    title = "Sources least like what the model was made for"
    return _show_groups(context, model, title, {"Most shifted": chosen}, "sources")


def _show_groups(
    context: Context,
    model: dict[str, Any],
    title: str,
    groups: Mapping[str, list[int]],
    of: str = "classes",
) -> Panel | None:
    """Return pictures of groups of sources."""
    chosen = [row for rows in groups.values() for row in rows]
    if not chosen:
        return None
    try:
        seen = _look_again(context, model, chosen)
    except SurveyMLError as error:
        text = render("<p>The model could not look again at its sources: {{ why }}</p>", why=error.message)
        return Panel(title, text)
    looks = any(one.attention is not None for one in seen.values())
    pieces = [
        render(
            "<p>Left: the cutout, its brightness as an asinh. Right: {{ what }} "
            "Axes are those of the image, in arcsec from the middle of the cutout.</p>",
            what="where the model looked (bright: more; beyond the square it does not see), with the outline "
            "of what it was given."
            if looks
            else "what the model was given.",
        )
    ]
    for name, members in groups.items():
        if rows := [row for row in members if row in seen]:
            pieces.append(_draw_group(context, model, name, rows, seen, of))
    return Panel(title, join(pieces))


def choose_sources(context: Context, classes: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return rows of sources: the most certain of each class, and the most doubtful of all.

    Duplicates and sources with flagged cutouts are left out, and a class that flags put in doubt is not
    among the certain ones. Of an island only one is shown: the cutouts of the others are nearly the same.
    """
    p = read_probabilities(context, list(classes))
    label = context.column("sources", "morph_class")
    flags = context.column("sources", "morph_flags").astype(np.int64)
    sure = ~find_doubtful(flags, label)
    good = context.is_best & ((flags & ~OF_SOURCE) == 0) & np.isfinite(p).all(axis=1)
    top = np.where(good, p.max(axis=1, initial=0.0), np.nan)
    taken: set[tuple[Any, Any]] = set()
    certain: list[int] = []
    for name in classes:
        rows = np.flatnonzero(good & sure & (label == name))
        certain += _take_islands(context, rows[np.argsort(-top[rows], kind="stable")], _EACH, taken)
    rows = np.flatnonzero(good)
    order = rows[np.argsort(top[rows], kind="stable")]
    return certain, _take_islands(context, order, _DOUBTFUL, taken)


def _take_islands(
    context: Context, rows: NDArray[np.int64], most: int, taken: set[tuple[Any, Any]]
) -> list[int]:
    """Return the first rows whose islands are not taken, and take them."""
    fields, islands = context.column("sources", "field"), context.column("sources", "island_id")
    found: list[int] = []
    for row in rows.tolist():
        place = (fields[row], islands[row])
        if len(found) < most and place not in taken:
            taken.add(place)
            found.append(row)
    return found


def _look_again(context: Context, model: dict[str, Any], chosen: list[int]) -> dict[int, _Shown]:
    """Show some sources to the model once more: attention is not stored."""
    spec = get_manager().stage("morphology")
    kind = load_factory(spec.factory, "stage morphology")
    options = kind.options_type.model_validate(dict(context.config.stages.get("morphology") or {}))
    stage = kind(resolve_paths(options, context.base))
    stage.setup()
    if stage.classifier.hash != model["hash"]:
        raise SurveyMLError(f"{model['name']} is another one now than when the release was made")
    card = stage.classifier.card
    side = card.preprocessing.side
    looked_at = int(card.architecture.get("side", side))
    found: dict[int, _Shown] = {}
    fields = context.column("sources", "field")[chosen]
    for name in np.unique(fields):
        rows = np.asarray(chosen)[fields == name]
        sources = {column: context.column("sources", column)[rows] for column in _SOURCE}
        inside = np.flatnonzero(context.column("islands", "field") == name)
        islands = {
            column: context.column("islands", column)[inside]
            for column in ("island_id", "x_min", "x_max", "y_min", "y_max")
        }
        info = context.release.field(str(name)).info
        for views in stage.show(_FieldImage(context, str(name)), info, sources, islands):
            attention = stage.classifier.predict(views.images).attention
            for k, row in enumerate(rows[views.rows]):
                seen = None if attention is None else attention[k]
                step = looked_at / seen.shape[0] if seen is not None else 1.0
                start = float(-((looked_at - side) // 2))
                found[int(row)] = _Shown(
                    views.pixels[k], views.images[k], seen, start, step, card.preprocessing.pixel_arcsec
                )
    return found


def _draw_group(
    context: Context, model: dict[str, Any], title: str, rows: list[int], seen: dict[int, _Shown], of: str
) -> Markup:
    n_rows = -(-len(rows) // _ACROSS)
    figure, axes = make_figure(n_rows, 2 * _ACROSS, height=2.15 * n_rows)
    for axis in axes[2 * len(rows) :]:
        axis.remove()
    p = read_probabilities(context, model["classes"])
    for k, row in enumerate(rows):
        left, right = axes[2 * k : 2 * k + 2]
        _draw_source(left, seen[row])
        _draw_attention(right, seen[row])
        order = np.argsort(-p[row], kind="stable")[:2]
        said = ", ".join(f"{model['classes'][i]} {p[row, i]:.2f}" for i in order)
        name = str(context.column("sources", "name")[row])
        left.set_title(f"{name}\n{said}", parse_math=False, fontsize=7.5, fontweight="normal")
        left.title.set_horizontalalignment("left")
    return draw(figure, f"{title} sources and where the model looked", f"{title} {of}.")


def _extent(side: int, pixel: float) -> tuple[float, float, float, float]:
    """Edges in arcsec of a cutout whose middle is pixel ``side // 2``."""
    low, high = (-(side // 2) - 0.5) * pixel, (side - side // 2 - 0.5) * pixel
    return low, high, low, high


def _draw_source(axis: Axes, one: _Shown) -> None:
    side = len(one.pixels)
    extent = _extent(side, one.pixel_arcsec)
    shown = np.ma.masked_invalid(stretch(one.pixels))
    axis.imshow(shown, origin="lower", extent=extent, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axis.set_facecolor("#dbe7f3")
    _finish(axis, _extent(len(one.image), one.pixel_arcsec))


def _draw_attention(axis: Axes, one: _Shown) -> None:
    side = len(one.image)
    extent = _extent(side, one.pixel_arcsec)
    if one.attention is None:
        axis.imshow(one.image, origin="lower", extent=extent, cmap="gray_r", vmin=0, vmax=1)
    else:
        low = extent[0] + one.start * one.pixel_arcsec
        high = low + one.attention.shape[0] * one.step * one.pixel_arcsec
        axis.imshow(
            one.attention, origin="lower", extent=(low, high, low, high), cmap="magma", vmin=0, vmax=1
        )
        middle = (np.arange(side) - side // 2) * one.pixel_arcsec
        if one.image.any():
            axis.contour(middle, middle, one.image > 0, levels=[0.5], colors=ORANGE, linewidths=0.6)
        axis.set_facecolor("black")
    _finish(axis, extent)
    axis.tick_params(labelleft=False)


def _finish(axis: Axes, extent: tuple[float, float, float, float]) -> None:
    axis.set_xlim(extent[0], extent[1])
    axis.set_ylim(extent[2], extent[3])
    axis.set_aspect("equal")
    axis.grid(visible=False)
    axis.tick_params(labelsize=6.5, length=2)
    reach = 50 * max(1, int(0.8 * extent[1] / 50)) if extent[1] > 60 else int(0.7 * extent[1])
    axis.set_xticks([-reach, 0, reach])
    axis.set_yticks([-reach, 0, reach])
