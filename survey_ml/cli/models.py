"""`survey-ml models list`, `show` and `check`."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_bytes, format_table, json_option, json_output

if TYPE_CHECKING:
    from survey_ml.learning.scores import Score
    from survey_ml.models.card import Card
    from survey_ml.models.pruning import Effect
    from survey_ml.models.reference import Reference
    from survey_ml.models.registry import ModelFile

_MODEL_STEM = re.compile(r"[a-z][a-z0-9-]{0,63}")
_MARKS = {True: "ok", False: "FAILED", None: "-"}


@click.group()
@debug_option
def models() -> None:
    """List trained models, show their cards and check them.

    A model is a name that `list` knows, or a file or folder.
    """


@models.command("list")
@json_option
@debug_option
@click.pass_context
def list_command(ctx: click.Context, as_json: bool) -> None:
    """List the models that are registered, built in or from plugins.

    Exit code 1 when one of them cannot be used.
    """
    from survey_ml.models.registry import list_models

    with json_output(as_json) as emit:
        found = [_describe(model) for model in list_models()]
        emit({"models": found})
    if not as_json:
        header = ("model", "version", "from", "classes", "size", "hash", "summary")
        well = [one for one in found if not one["fault"]]
        rows = [
            (
                one["name"],
                one["version"],
                one["origin"],
                " ".join(one["classes"]),
                format_bytes(one["bytes"]),
                one["hash"][:12],
                one["summary"],
            )
            for one in well
        ]
        click.echo(format_table(header, rows))
        if broken := [one for one in found if one["fault"]]:
            click.echo("\nbroken:")
            for one in broken:
                click.echo(f"  {one['name']} ({one['origin']}): {one['fault']}")
    ctx.exit(1 if any(one["fault"] for one in found) else 0)


@models.command()
@click.argument("name", metavar="NAME|PATH")
@json_option
@debug_option
def show(name: str, as_json: bool) -> None:
    """Show the card of a model: what it is, what it was made from, how well it does, where it fails."""
    from survey_ml.models.format import read_card
    from survey_ml.models.reference import find_reference
    from survey_ml.models.registry import find_model

    with json_output(as_json) as emit:
        model = find_model(name)
        card, digest = read_card(model.path)
        reference = find_reference(model.path, digest)
        emit(
            {
                "name": model.name,
                "origin": model.origin,
                "path": str(model.path),
                "bytes": model.path.stat().st_size,
                "hash": digest,
                "card": card.model_dump(mode="json"),
                "reference": None if reference is None else reference.summary.model_dump(mode="json"),
            }
        )
    if not as_json:
        _print_card(model, card, digest)
        _print_reference(reference)


@models.command()
@click.argument("name", metavar="NAME|PATH")
@click.option(
    "--n",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Images to turn; the other checks take 129.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Of the images.")
@json_option
@debug_option
@click.pass_context
def check(ctx: click.Context, name: str, n: int, seed: int, as_json: bool) -> None:
    """Check a model: its file, that batches and runtimes do not matter, and what turning images does.

    Images are made from a seed. `symmetry` fails only when the card claims more than is kept. Exit
    code 0: all checks passed; 1: some did not; 2: there is no such model.
    """
    from survey_ml.models.check import check_model
    from survey_ml.models.registry import find_model

    with json_output(as_json) as emit:
        model = find_model(name)
        with _show_progress() as tell:
            checks, symmetries = check_model(model, n=n, seed=seed, tell=tell)
        passed = all(one.passed is not False for one in checks)
        emit(
            {
                "model": model.name,
                "origin": model.origin,
                "n": n,
                "seed": seed,
                "passed": passed,
                "checks": checks,
                "symmetries": symmetries,
            }
        )
    if not as_json:
        click.echo(f"{model.name}  ({model.origin}, {model.path})\n")
        for one in checks:
            click.echo(f"{_MARKS[one.passed]:<6}  {one.name:<8}  {one.detail}")
        if symmetries:
            rows = [
                (one.name, f"{one.largest:.2g}", one.flips, "yes" if one.claimed else "no")
                for one in symmetries
            ]
            header = ("symmetry", "largest change", "labels changed", "claimed")
            click.echo("\n" + format_table(header, rows))
        click.echo(f"\n{'all checks passed' if passed else 'not all checks passed'}")
    ctx.exit(0 if passed else 1)


@models.command()
@click.argument("name", metavar="NAME|PATH")
@click.option(
    "--by",
    type=click.Choice(["snr", "fisher"]),
    default="snr",
    show_default=True,
    help="What goes first: weights least certain, or least informative.",
)
@click.option(
    "--fraction",
    default=0.3,
    show_default=True,
    type=click.FloatRange(min=0.0, max=1.0, max_open=True),
    help="Share of the weights of fully connected layers that is taken out.",
)
@click.option("--data", required=True, metavar="SOURCE", help="Images that the model was trained on.")
@click.option("--subset", metavar="NAME", help="Part of a data set known by name, such as confident.")
@click.option("--test", metavar="SOURCE", help="Test images: the split test of the data unless given.")
@click.option("--out", required=True, metavar="FILE", help="What is written; ends in .safetensors.")
@json_option
@debug_option
def prune(
    name: str,
    by: Any,
    fraction: float,
    data: str,
    subset: str | None,
    test: str | None,
    out: str,
    as_json: bool,
) -> None:
    """Take weights out of a network with a posterior over them, and say what that does.

    Test images say how error and calibration change, class by class. What is left is calibrated anew on the
    validation images of the model's training, which its card tells apart; if there were none, its
    calibration is kept as it was.
    """
    from pathlib import Path

    from survey_ml.data.labelled.reading import read_labelled
    from survey_ml.errors import ConfigError
    from survey_ml.models.fitting import Fitting, divide_images
    from survey_ml.models.format import SUFFIX, read_card
    from survey_ml.models.pruning import compare_models, describe_effects, prune_model
    from survey_ml.models.registry import find_model

    with json_output(as_json) as emit:
        base, path = find_model(name).path, Path(out)
        if path.suffix != SUFFIX or not _MODEL_STEM.fullmatch(path.stem):
            raise ConfigError(
                f"{out} cannot be the file of a model", f"lower-case letters, digits, hyphens, and {SUFFIX}"
            )
        card, _ = read_card(base)
        images = read_labelled(data, subset, classes=card.classes)
        own = images.take(images.split == "test")
        tests = own if test is None else read_labelled(test, classes=card.classes)
        if not len(tests):
            raise ConfigError(f"{data} has no test images", "name some with --test")
        known = {key: value for key, value in card.training.recipe.items() if key in Fitting.model_fields}
        train, held = divide_images(images.take(images.split != "test"), Fitting.model_validate(known))
        said = " ".join(part for part in (data, subset) if part) + ", validation images"
        n = prune_model(base, path, by=by, share=fraction, train=train, held=held, said=said)
        pairs = compare_models(base, path, tests)
        _, digest = read_card(path)
        found = {"model": path, "hash": digest, "by": by, "fraction": fraction, "pruned": n}
        emit(found | {"effect": describe_effects(pairs)})
    if as_json:
        return
    header = ("class", "n", "error before", "after", "ECE before", "after", "UCE before", "after")
    rows = [
        (
            one.label,
            one.error.n,
            *(_show_score(score) for pair in zip(_list(one), _list(two), strict=True) for score in pair),
        )
        for one, two in pairs
    ]
    click.echo(format_table(header, rows))
    click.echo(f"\n{n} weights of fully connected layers taken out by {by}\n{path}")


def _list(effect: Effect) -> tuple[Score, Score, Score]:
    return effect.error, effect.ece, effect.uce


def _show_score(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


@contextlib.contextmanager
def _show_progress() -> Iterator[Callable[[int, int], None] | None]:
    """Yield what to tell about progress: a bar at a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=8, label="symmetries", file=sys.stderr) as bar:
        yield lambda done, total: bar.update(done - bar.pos)


def _describe(model: ModelFile) -> dict[str, Any]:
    from survey_ml.errors import SurveyMLError
    from survey_ml.models.format import read_card

    found: dict[str, Any] = {
        "name": model.name,
        "origin": model.origin,
        "summary": model.summary,
        "path": str(model.path) if not model.fault else None,
        "version": None,
        "classes": [],
        "kind": None,
        "invariant_under": None,
        "bytes": None,
        "hash": None,
        "fault": model.fault,
    }
    if model.fault:
        return found
    try:
        card, digest = read_card(model.path)
    except SurveyMLError as error:
        return found | {"fault": error.message}
    return found | {
        "version": card.version,
        "classes": list(card.classes),
        "kind": card.kind,
        "invariant_under": card.invariant_under,
        "bytes": model.path.stat().st_size,
        "hash": digest,
    }


def _print_reference(reference: Reference | None) -> None:
    """Say what a shift is told by."""
    if reference is None:
        click.echo("\nreference summary: none beside the model; the stage shift needs one")
        return
    told = reference.summary
    counts = ", ".join(f"{n} {name}" for name, n in zip(told.classes, told.counts, strict=True))
    held = "not trained on" if told.held_out else "some of them trained on"
    click.echo(f"\nreference summary: {told.n} images ({counts}), {held}: {told.data or 'not said which'}")


def _print_card(model: ModelFile, card: Card, digest: str) -> None:
    images, training = card.preprocessing, card.training
    lines = [
        ("model", f"{card.name} {card.version}  ({card.kind}, from {model.origin})"),
        ("file", f"{model.path}  ({format_bytes(model.path.stat().st_size)})"),
        ("hash", digest),
        ("classes", ", ".join(card.classes)),
        ("invariant under", card.invariant_under or "nothing"),
        (
            "images",
            f"{images.side} px of {images.pixel_arcsec:g} arcsec, beam {images.beam_arcsec:g} arcsec, "
            f"empty below {images.clip_sigma:g} times the noise",
        ),
        ("architecture", _list_settings(card.architecture)),
        ("temperature", f"{card.temperature:g}" if card.base is None else ""),
        *_describe_posterior(card),
        ("trained on", f"{training.data} ({training.n} images)" if training.data else ""),
        (
            "and without labels",
            f"{training.unlabelled} ({training.n_unlabelled} images)" if training.unlabelled else "",
        ),
        ("split", training.split),
        ("seeds", ", ".join(map(str, training.seeds))),
        ("recipe", _list_settings(training.recipe)),
        ("made", " ".join(part for part in (training.date, training.commit) if part)),
        ("use", card.intended_use),
        ("limits", card.limits),
        ("licence", card.licence),
    ]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        if text:
            click.echo(f"{name:<{width}}  {text}")
    if card.metrics:
        header = ("quantity", "value", "low", "high", "n", "data")
        click.echo()
        click.echo(
            format_table(header, [(m.quantity, m.value, m.low, m.high, m.n, m.data) for m in card.metrics])
        )


def _describe_posterior(card: Card) -> list[tuple[str, str]]:
    """Return what is to be said of a posterior over weights."""
    if card.posterior is None:
        return []
    posterior, calibration = card.posterior, card.calibration
    said = f"{posterior.method} over {'all weights' if card.base is None else 'the last layer'}"
    if posterior.prior_scale:
        said += f", {posterior.prior} prior of width {posterior.prior_scale:.3g}"
    if posterior.temperature != 1.0:
        said += f", temperature {posterior.temperature:g}"
    if posterior.members:
        said += f", {posterior.members} networks"
    if posterior.pruned:
        said += f", {posterior.pruned:.0%} of the dense weights taken out by {posterior.pruned_by}"
    found = [("posterior", said)]
    if card.base is not None:
        found.insert(0, ("belongs to", f"{card.base.name} ({card.base.hash[:12]})"))
    if calibration is not None:
        said = f"by {calibration.method} on {calibration.n} images: {calibration.data}"
        found.append(("calibrated", said))
    return found


def _list_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_shorten(value)}" for key, value in _flatten(settings))


def _flatten(settings: Mapping[str, Any], begin: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by their whole name, such as ``architecture.members.0.side``."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{begin}{key}.")
        elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
            yield from _flatten({str(k): one for k, one in enumerate(value)}, f"{begin}{key}.")
        else:
            yield f"{begin}{key}", value


def _shorten(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
