"""The built-in commands: name, where they are, and one line; kept apart from what they import."""

from __future__ import annotations

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("demo", "survey_ml.cli.demo:demo", "Make a small release with a known truth and process it"),
    ("init", "survey_ml.cli.init:init", "Write a commented release YAML to start from"),
    ("check", "survey_ml.cli.check:check", "Check a release without processing it"),
    ("run", "survey_ml.cli.run:run", "Process a release, or go on with one"),
    ("watch", "survey_ml.cli.watch:watch", "Process images as they arrive in a folder or bucket"),
    ("plan", "survey_ml.cli.plan:plan", "Show what a run would do, and why"),
    ("status", "survey_ml.cli.status:status", "Show what a release holds, and verify it"),
    ("gc", "survey_ml.cli.gc:gc", "List what a release no longer needs, and remove it"),
    ("export", "survey_ml.cli.export:export", "Write catalogues and maps of a release again"),
    ("report", "survey_ml.cli.report:report", "Write the report of a release again"),
    ("classify", "survey_ml.cli.classify:classify", "Classify cutouts of radio sources by their shape"),
    ("shift", "survey_ml.cli.shift:shift", "Tell whether images are like others, and how they differ"),
    ("models", "survey_ml.cli.models:models", "List trained models, show their cards and check them"),
    ("deploy", "survey_ml.cli.deploy:deploy", "Create or update a Prefect deployment of a release"),
    ("serve", "survey_ml.cli.serve:serve", "Run a release on a schedule from this process"),
    ("trigger", "survey_ml.cli.trigger:trigger", "Ask Prefect for a run of a deployment now"),
    ("cancel", "survey_ml.cli.cancel:cancel", "Cancel a run; a later one goes on from there"),
    ("plugins", "survey_ml.cli.plugins:plugins", "List stages, formats and commands and their origin"),
    ("selftest", "survey_ml.cli.selftest:selftest", "Check this installation, and what it survives"),
    ("train", "survey_ml.cli.train:train", "Train a model on labelled images"),
    ("reproduce", "survey_ml.cli.reproduce:reproduce", "Run the headline experiment of a paper"),
    ("version", "survey_ml.cli.version:version", "Show the versions that a release depends on"),
)
