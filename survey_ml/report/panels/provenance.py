"""Where the release comes from, what made it, and how to cite it."""

from __future__ import annotations

from typing import Any

import yaml
from markupsafe import Markup

from survey_ml import __version__
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, join, make_table, render

_INPUTS = 50
_CITATION = (
    "The survey_ml developers, survey_ml: radio survey releases to science-ready catalogues, "
    f"version {__version__}."
)


def show_provenance(context: Context) -> Panel:
    """Return stages with versions and options, inputs with checksums, the YAML, and a citation."""
    pieces = [_cite(context), _list_stages(context), _list_inputs(context), _show_yaml(context)]
    return Panel("Provenance and citation", join(pieces))


def _cite(context: Context) -> Markup:
    return render(
        "<h3>How to cite</h3><p>{{ citation }} Name the release ({{ name }}) and the version, so that "
        "others can make it again. <code>SHA256SUMS</code> has the checksums of what is published, "
        "<code>ro-crate-metadata.json</code> all of what is on this page for machines.</p>",
        citation=_CITATION,
        name=context.config.name,
    )


def _list_stages(context: Context) -> Markup:
    seen: dict[str, dict[str, Any]] = {}
    origins: dict[str, set[str]] = {}
    for unit, commit in context.commits.items():
        seen.setdefault(unit.stage, commit.made_by)
        told = (commit.info.get("distribution", ""), commit.info.get("distribution_version", ""))
        origins.setdefault(unit.stage, set()).add(" ".join(told).strip())
    rows = []
    packages: dict[str, str] = {}
    for stage, made_by in sorted(seen.items(), key=lambda item: (item[0] != "ingest", item[0])):
        options = made_by.get("options", {})
        text = ", ".join(f"{key} = {value}" for key, value in options.items()) if options else "–"
        origin = ", ".join(sorted(origins[stage] - {""})) or "–"
        rows.append((stage, made_by.get("version", "–"), origin, text))
        packages |= made_by.get("packages", {})
    pieces = [
        Markup("<h3>Stages</h3>"),
        make_table(("Stage", "Version", "From", "Options"), rows),
        render(
            '<p class="note">survey_ml {{ version }}{% for name, v in packages %}, {{ name }} {{ v }}'
            "{% endfor %}; seed {{ seed }}.</p>",
            version=__version__,
            packages=sorted(packages.items()),
            seed=context.config.seed,
        ),
    ]
    return join(pieces)


def _list_inputs(context: Context) -> Markup:
    sums = context.release.store.checksums
    rows = []
    for name in context.release.fields[:_INPUTS]:
        source = context.release.store.source(name)
        digest = str(sums.get(source.path, {}).get("sha256", ""))
        rows.append(
            (name, source.path.rsplit("/", 1)[-1], digest[:16] or "–", "; ".join(source.notes) or "–")
        )
    table = make_table(("Field", "File", "SHA-256 (first 16)", "Notes"), rows)
    left = len(context.release.fields) - len(rows)
    text = (
        "<details><summary>{{ n }} inputs</summary>{{ table }}"
        '{% if left %}<p class="note">{{ left }} more are in ro-crate-metadata.json.</p>{% endif %}</details>'
    )
    return render(
        "<h3>Inputs</h3>" + text, n=len(context.release.fields), table=table, left=left if left > 0 else 0
    )


def _show_yaml(context: Context) -> Markup:
    document = yaml.safe_dump(context.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return render(
        "<h3>Configuration</h3><details><summary>The release YAML as run, with all defaults</summary>"
        "<pre>{{ document }}</pre></details>",
        document=document,
    )
