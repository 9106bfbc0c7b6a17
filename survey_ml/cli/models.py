"""`survey-ml models list`, `show` and `check`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_bytes, format_table, json_option, json_output

if TYPE_CHECKING:
    from survey_ml.models.card import Card
    from survey_ml.models.registry import ModelFile

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
    from survey_ml.models.registry import find_model

    with json_output(as_json) as emit:
        model = find_model(name)
        card, digest = read_card(model.path)
        emit(
            {
                "name": model.name,
                "origin": model.origin,
                "path": str(model.path),
                "bytes": model.path.stat().st_size,
                "hash": digest,
                "card": card.model_dump(mode="json"),
            }
        )
    if not as_json:
        _print_card(model, card, digest)


@models.command()
@click.argument("name", metavar="NAME|PATH")
@click.option("--n", default=1000, show_default=True, type=click.IntRange(min=1), help="Images to turn.")
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
        ("architecture", ", ".join(f"{key} {_shorten(value)}" for key, value in card.architecture.items())),
        ("temperature", f"{card.temperature:g}" if card.base is None else ""),
        *_describe_posterior(card),
        ("trained on", f"{training.data} ({training.n} images)" if training.data else ""),
        ("split", training.split),
        ("seeds", ", ".join(map(str, training.seeds))),
        ("recipe", ", ".join(f"{key} {_shorten(value)}" for key, value in training.recipe.items())),
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
    """Return what is to be said of a posterior over the last layer of another model."""
    if card.base is None or card.posterior is None or card.calibration is None:
        return []
    posterior, calibration = card.posterior, card.calibration
    prior = f", prior of width {posterior.prior_scale:.3g}" if posterior.prior_scale else ""
    return [
        ("belongs to", f"{card.base.name} ({card.base.hash[:12]})"),
        ("posterior", f"{posterior.method} over the last layer{prior}"),
        ("calibrated", f"by {calibration.method} on {calibration.n} images: {calibration.data}"),
    ]


def _shorten(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
