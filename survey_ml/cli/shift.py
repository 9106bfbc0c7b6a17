"""`survey-ml shift compare` and `shift pool`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_count, format_table, json_option, json_output

if TYPE_CHECKING:
    from survey_ml.data.cutouts import Cutout
    from survey_ml.data.morphologies import Morphologies
    from survey_ml.data.pools import Placed
    from survey_ml.learning.shift import Shift
    from survey_ml.learning.shift_sources import Sources
    from survey_ml.models.classifier import Classifier

UNITS = {"beam": "beam (px)", "size": "size (px)", "rms": "rms (of the image)"}
READ_AT_A_TIME = 256
"""Images that are held in memory at a time."""


def _require_number(ctx: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):  # which no range refuses
        raise click.BadParameter(f"{value} is no number")
    return value


model_option = click.option(
    "--model",
    metavar="NAME|PATH",
    help="Whose embedding is looked at: mirabest-d4 unless given; `survey-ml models list` knows names.",
)
permutations_option = click.option(
    "--permutations", default=200, show_default=True, type=click.IntRange(min=2), help="Random deals."
)
alpha_option = click.option(
    "--alpha",
    default=0.01,
    show_default=True,
    type=click.FloatRange(min=0.0, max=1.0, min_open=True, max_open=True),
    callback=_require_number,
    help="Level of significance.",
)
seed_option = click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))


def _add_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (debug_option, json_option, seed_option, alpha_option, permutations_option, model_option):
        command = option(command)
    return command


@click.group()
@debug_option
def shift() -> None:
    """Tell whether images are like others, and how they differ."""


@shift.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@_add_options
def compare(
    first: str, second: str, model: str | None, permutations: int, alpha: float, seed: int, as_json: bool
) -> None:
    """Compare the images B with the images A, as a model sees them.

    A and B are each an .npy array of images (n, y, x), a folder of cutouts, one of the other files that
    `survey-ml classify` reads, the folder of a release that this model classified, or its catalogue
    (sources.fits, .vot, .parquet, or .csv), of which only the classes can be compared; 20 sources at least.

    The level is green where nothing differs; amber where the mix of classes or how images look differs, but
    classes can be told; red where sources of a class look so different that the model is not to be trusted.
    """
    from survey_ml.models.classifier import load_classifier
    from survey_ml.models.reference import find_reference
    from survey_ml.models.registry import find_model
    from survey_ml.models.shift import compare_sets, describe_shift
    from survey_ml.models.spec import DEFAULT

    with json_output(as_json) as emit:
        path = find_model(DEFAULT if model is None else model).path
        classifier = load_classifier(path)
        reference = find_reference(path, classifier.hash)
        one, other = _find_sources(first, second, classifier)
        found = compare_sets(
            classifier, one, other, reference, permutations=permutations, alpha=alpha, seed=seed
        )
        emit(describe_shift(found, classifier.classes))
    if not as_json:
        _print_shift(found, classifier.classes)


@shift.command()
@click.argument("labelled", metavar="LABELLED")
@click.argument("unlabelled", metavar="UNLABELLED")
@_add_options
def pool(
    labelled: str,
    unlabelled: str,
    model: str | None,
    permutations: int,
    alpha: float,
    seed: int,
    as_json: bool,
) -> None:
    """Tell whether UNLABELLED images may be learnt from beside LABELLED ones.

    LABELLED is what `survey-ml train morphology` reads: the name of a data set, an archive, a table or a
    folder with labels.csv. UNLABELLED is one of these, a .npz file of cutouts, an .npy array or a folder.
    Where LABELLED has validation or test images, these are compared with: the model may have been trained on
    the others. Sources within 30 arcsec count as one, where positions are known.

    Exit code 0, whether the pool is safe or not: `safe` and `reasons` tell.
    """
    from survey_ml.data.labelled.reading import read_labelled
    from survey_ml.data.pools import read_pool
    from survey_ml.models.classifier import load_classifier
    from survey_ml.models.pools import judge_images
    from survey_ml.models.registry import find_model
    from survey_ml.models.spec import DEFAULT

    with json_output(as_json) as emit:
        classifier = load_classifier(find_model(DEFAULT if model is None else model).path)
        images = read_labelled(labelled)
        places: list[tuple[str, float, float]] = []
        sources = _describe(_note(read_pool(unlabelled), places), classifier)
        found = judge_images(
            classifier,
            images,
            sources,
            places,
            permutations=permutations,
            alpha=alpha,
            seed=seed,
        )
        emit(
            {
                "safe": not found.reasons,
                "reasons": found.reasons,
                "leaks": [asdict(one) for one in found.leaks],
            }
        )
    if not as_json:
        click.echo("safe" if not found.reasons else "not safe")
        for reason in found.reasons:
            click.echo(f"  {reason}")
    for note in found.notes:
        click.echo(note, err=True)


def _find_sources(first: str, second: str, classifier: Classifier) -> tuple[Sources, Sources]:
    """Return what a model makes of images, or of the sources of releases and catalogues."""
    from dataclasses import replace

    from survey_ml.data.catalogues import is_catalogue
    from survey_ml.data.morphologies import is_release, read_morphologies, read_morphology_catalogue
    from survey_ml.errors import ConfigError, InputError
    from survey_ml.learning.shift import LEAST_SOURCES

    measured, sides = [], []
    for source in (first, second):
        if not source.strip():
            raise ConfigError("a set to compare is named by nothing", "give a file, a folder or a release")
        readers = {read_morphologies: is_release, read_morphology_catalogue: is_catalogue}
        read = next((one for one, fits in readers.items() if fits(source)), None)
        measured.append(read is not None)
        if read is None:
            sides.append(_describe(_read(source), classifier))
        else:
            sides.append(_take_measured(source, read(source, classifier.classes), classifier))
    if measured[0] != measured[1]:
        # Beam, signal and size are measured in another way: what differs would be the way.
        sides = [replace(side, covariates={}) for side in sides]
    for source, side in zip((first, second), sides, strict=True):
        if len(side) < LEAST_SOURCES:
            known = format_count(len(side), "source")
            raise InputError(
                f"{source} has {known} to judge by, too few: {LEAST_SOURCES} are needed", "give more of them"
            )
    return sides[0], sides[1]


def _take_measured(source: str, found: Morphologies, classifier: Classifier) -> Sources:
    """Return the sources that the stage ``shift`` would judge: none spoilt, the brightest of pieces."""
    import numpy as np

    from survey_ml.errors import InputError
    from survey_ml.learning.shift_objects import choose_objects, leave_spoilt
    from survey_ml.learning.shift_sources import Sources

    if found.model and found.model != classifier.label:
        raise InputError(
            f"{source} was classified by {found.model}, not by {classifier.label}",
            "name its model with --model, or run it again",
        )
    wanted = classifier.card.preprocessing
    pixel = wanted.pixel_arcsec
    covariates = {
        "beam": found.beam / pixel,
        "rms": found.rms,
        "signal_to_noise": found.snr,
        "size": found.size / pixel,
    }
    if not np.isfinite(found.beam).any():
        click.echo(f"{source} does not tell the beam, so that beam is no cause to be found", err=True)
    whole = leave_spoilt(np.ones(len(found.flags), bool), found.flags)
    reach = 0.5 * wanted.side * pixel
    rows = whole[choose_objects(found.ra[whole], found.dec[whole], found.flux[whole], reach)]
    if len(rows) < len(found.flags):
        spoilt = format_count(len(found.flags) - len(whole), "source")
        pieces = format_count(len(whole) - len(rows), "piece")
        click.echo(
            f"left out of {source}: {spoilt} faint, cut off or outshone, and {pieces} of others", err=True
        )
    if lost := int(np.count_nonzero(~np.isfinite(found.ra[rows] + found.dec[rows]))):
        click.echo(
            f"{format_count(lost, 'source')} of {source} without a position counted each by itself", err=True
        )
    return Sources(found.embedding, found.probabilities, None, covariates).take(rows)


def _read(source: str) -> Iterator[Cutout]:
    """Yield the images of a source.

    Raises
    ------
    InputError
        When one cannot be read: a comparison of what is left would be of something else.
    """
    from survey_ml.data.cutouts import UnreadableCutout, read_cutouts
    from survey_ml.errors import InputError

    for one in read_cutouts([source]):
        if isinstance(one, UnreadableCutout):
            raise InputError(one.cause, one.remedy)
        yield one


def _note(placed: Iterable[Placed], places: list[tuple[str, float, float]]) -> Iterator[Cutout]:
    """Yield the images, and keep names and positions."""
    for one in placed:
        places.append((one.name, one.ra, one.dec))
        yield one.cutout


def _describe(cutouts: Iterator[Cutout], classifier: Classifier) -> Sources:
    """Return what a model makes of images, some at a time."""
    import numpy as np

    from survey_ml.errors import InputError
    from survey_ml.learning.preparation import prepare_image
    from survey_ml.learning.preprocessing import measure_noise
    from survey_ml.learning.shift_sources import join_sources
    from survey_ml.models.shift import describe_images

    wanted, parts, empty = classifier.card.preprocessing, [], 0
    while part := list(itertools.islice(cutouts, READ_AT_A_TIME)):
        images, beams, noises = [], [], []
        for one in part:
            made = prepare_image(
                one.image, wanted, pixel_arcsec=one.pixel_arcsec, beam_arcsec=one.beam_arcsec
            )
            if "no_data" in made.flags or "empty" in made.flags:
                empty += 1
                continue
            images.append(made.image)
            beams.append(one.beam_arcsec)
            noises.append(np.nan if one.eight_bit else measure_noise(one.image))
        if images:
            parts.append(describe_images(classifier, np.stack(images), beam_arcsec=beams, rms=noises))
    if empty:
        click.echo(f"left out: {format_count(empty, 'image')} with nothing in them", err=True)
    if not parts:
        raise InputError("no image has anything in it", "give images of sources")
    return join_sources(parts)


def _print_shift(found: Shift, classes: tuple[str, ...]) -> None:
    click.echo(f"{found.level}{f': {found.cause}' if found.cause else ''}  (score {found.score:.2f})\n")
    rows = [
        (
            f"{kind}{name}",
            one.value,
            one.low,
            one.high,
            one.null_mean,
            one.null_std,
            one.p_value,
            one.n,
            one.d,
        )
        for kind, group in (("", found.statistics), ("matched ", found.conditional.statistics))
        for name, one in group.items()
    ]
    click.echo(format_table(("statistic", "value", "low", "high", "by chance", "std", "p", "n", "d"), rows))
    if math.isfinite(found.conditional.prior_only):
        click.echo(f"\nmmd that another mix of classes alone would make: {found.conditional.prior_only:.3f}")
    if found.covariates:
        looks = [
            (UNITS.get(name, name), f"{one.reference:.4g}", f"{one.sample:.4g}", one.distance,
             f"{one.p_value:.3g}", one.shifted, one.n)
            for name, one in found.covariates.items()
        ]  # fmt: skip
        click.echo("\n" + format_table(("images", "median A", "median B", "KS", "p", "shifted", "n"), looks))
    if found.prior.found is None:
        click.echo(f"\nno shares of classes: {found.prior.refused}")
        return
    mix = found.prior.found
    shares = [
        (name, float(mix.before[k]), float(mix.shares[k]), float(mix.low[k]), float(mix.high[k]),
         float(mix.check[k]))
        for k, name in enumerate(classes)
    ]  # fmt: skip
    click.echo("\n" + format_table(("class", "expected", "share of B", "low", "high", "check"), shares))
