"""The command line: one module a command, imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run ``survey-ml`` and leave with its exit code: 0 all well, 1 some set aside, 2 nothing came of it."""
    import sys

    from survey_ml.collection import collect_seldom

    with collect_seldom():
        from survey_ml.cli.group import call

        sys.exit(call(list(sys.argv[1:] if args is None else args)))
