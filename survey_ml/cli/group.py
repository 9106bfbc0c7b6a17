"""The `survey-ml` group: commands are imported when called, errors are printed for people."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import click

from survey_ml.cli.output import show_controls
from survey_ml.cli.spec import COMMANDS
from survey_ml.errors import SurveyMLError

NOTHING_DONE = 2
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to call it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the built-in commands in reading order, then those of plugins by name."""
        return [name for name, _, _ in [*COMMANDS, *_find_plugin_commands()]]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is none of this name."""
        for name, factory, _ in COMMANDS:
            if name == cmd_name:
                module, _, attribute = factory.partition(":")
                return getattr(importlib.import_module(module), attribute)
        for name, factory, _ in _find_plugin_commands():
            if name == cmd_name:
                from survey_ml.plugins import load_factory

                command = load_factory(factory, f"command {name}")
                if not isinstance(command, click.Command):
                    raise SurveyMLError(
                        f"{factory} is not a click command", "decorate it with @click.command()"
                    )
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, suggesting the nearest name for one that is not there."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            from difflib import get_close_matches

            near = get_close_matches(name, self.list_commands(ctx), n=1)
            ctx.fail(f"no such command {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, _, summary in COMMANDS])
        more = _find_plugin_commands()
        if more:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, summary) for name, _, summary in more])


def _find_plugin_commands() -> list[tuple[str, str, str]]:
    """Return the commands of third parties; without a plugin nothing is imported."""
    from importlib.metadata import entry_points

    if not entry_points(group="survey_ml.v1") or os.environ.get("SURVEY_ML_PLUGINS") == "":
        return []
    from survey_ml.plugins import get_manager

    known = {name for name, _, _ in COMMANDS}
    specs = get_manager().commands()
    return [(spec.name, spec.factory, spec.summary) for spec in specs if spec.name not in known]


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().ensure_object(dict)["debug"] = True


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_debug,
    help="Show the traceback of an error.",
)


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import survey_ml

        click.echo(f"survey-ml {survey_ml.__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
@debug_option
def survey_ml_group() -> None:
    """Turn a radio survey release into a science-ready catalogue.

    \b
    survey-ml demo                     try it on a simulated release
    survey-ml run image.fits --out DIR try it on an image of yours
    survey-ml init                     write a release YAML, then edit, check and run it
    """  # noqa: D301 (click wants a literal backspace mark)


def call(args: list[str]) -> int:
    """Run the command line and return its exit code; errors go to standard error.

    With ``--json`` an error is also the one JSON object on standard output.
    """
    state: dict[str, Any] = {"debug": bool(os.environ.get("SURVEY_ML_DEBUG"))}
    try:
        result = survey_ml_group.main(args, prog_name="survey-ml", standalone_mode=False, obj=state)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return _fail(args, error.format_message(), "")
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; the same command goes on from here", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; what is left in the buffer must not raise at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SurveyMLError as error:
        if state["debug"]:
            _trace()
        place = f"{error.place}: " if error.place else ""
        click.echo(f"error: {show_controls(f'{place}{error.message}')}", err=True)
        if error.hint:
            click.echo(f"hint: {show_controls(error.hint)}", err=True)
        return _fail(args, f"{place}{error.message}", error.hint)
    except Exception as error:
        if state["debug"]:
            _trace()
        cause = f"{type(error).__name__}: {error}"
        hint = "this is a fault in survey_ml or a plugin; run again with --debug and report what it shows"
        click.echo(f"error: {show_controls(cause)}\nhint: {hint}", err=True)
        return _fail(args, cause, hint)
    return result if isinstance(result, int) else 0


def _trace() -> None:
    import traceback

    traceback.print_exc()


def _fail(args: list[str], message: str, hint: str) -> int:
    if "--json" in args:
        click.echo(json.dumps({"error": message, "hint": hint, "exit_code": NOTHING_DONE}))
    return NOTHING_DONE
