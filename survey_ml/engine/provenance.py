"""What a release was made from and how, as an RO-Crate (JSON-LD) that any tool can read."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from survey_ml import __version__
from survey_ml.data.stored_json import decode_object
from survey_ml.engine.keys import hash_json, package_versions
from survey_ml.engine.work import RELEASE
from survey_ml.errors import SetAside
from survey_ml.graph import INGEST, Graph

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig
    from survey_ml.data.inputs import Source
    from survey_ml.engine.ledger import Ledger
    from survey_ml.engine.plan import Plan

FILE = "ro-crate-metadata.json"
_CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://schema.org/sha256"}]
_PARTS = {
    "catalogue/": ("Dataset", "Catalogues, regions and coverage"),
    "store.zarr/": ("Dataset", "Images, backgrounds, noise, models and residuals"),
    "report.html": ("File", "Report of the release"),
}


def is_described(held: bytes | None, crate: Mapping[str, Any]) -> bool:
    """Tell whether a stored crate says the same as a new one, but for when it was written."""
    old = decode_object(held, {"@graph": list})
    if old is None or not all(isinstance(entry, dict) for entry in old["@graph"]):
        return False
    return _timeless(old) == _timeless(json.loads(json.dumps(crate)))


def _timeless(crate: Mapping[str, Any]) -> list[dict[str, Any]]:
    times = {"endTime", "datePublished"}
    return [{k: v for k, v in entry.items() if k not in times} for entry in crate["@graph"]]


def describe_release(
    config: LoadedConfig,
    graph: Graph,
    sources: Iterable[Source],
    plan: Plan,
    ledger: Ledger,
    set_aside: Iterable[SetAside],
) -> dict[str, Any]:
    """Return the provenance of a release as an RO-Crate 1.1.

    It holds the configuration, versions, seed, the checksum of each input, and for each stage its
    version, the distribution that brought it, options, a digest of its keys and the time it took.
    """
    inputs = [_describe_input(source, plan) for source in sources]
    steps = [_describe_step(spec.name, graph, plan, ledger) for spec in graph.order]
    software = {
        "@id": "#survey_ml",
        "@type": "SoftwareApplication",
        "name": "survey_ml",
        "version": __version__,
        "softwareRequirements": [
            *(f"{name} {version}" for name, version in package_versions().items()),
            f"python {sys.version_info.major}.{sys.version_info.minor}",
        ],
    }
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
    run = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"survey-ml run {PurePosixPath(config.source).name if config.source else ''}".strip(),
        "instrument": {"@id": "#survey_ml"},
        "endTime": now,
        "object": [{"@id": entry["@id"]} for entry in inputs],
        "result": {"@id": "./"},
        "additionalProperty": [
            _property("configuration", config.release.model_dump(mode="json")),
            _property("seed", config.release.seed),
            _property("set_aside", [vars(entry) for entry in set_aside]),
        ],
    }
    parts = [{"@id": name, "@type": kind, "name": title} for name, (kind, title) in _PARTS.items()]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": config.release.name,
        "description": f"Radio survey release {config.release.name}, made with survey_ml {__version__}",
        "datePublished": now[:10],
        "hasPart": [{"@id": part["@id"]} for part in parts],
        "mentions": [{"@id": "#run"}, *({"@id": step["@id"]} for step in steps)],
    }
    descriptor = {
        "@id": FILE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    return {"@context": _CONTEXT, "@graph": [descriptor, root, *parts, software, run, *steps, *inputs]}


def _property(name: str, value: Any) -> dict[str, Any]:
    return {"@type": "PropertyValue", "name": name, "value": value}


def _describe_input(source: Source, plan: Plan) -> dict[str, Any]:
    made_by: Mapping[str, Any] = plan.made_by.get((source.field.name, INGEST), {})
    return {
        "@id": f"#input-{source.field.name}",
        "@type": "File",
        "name": PurePosixPath(source.path).name,
        "identifier": source.field.name,
        "sha256": made_by.get("input", {}).get("sha256", ""),
    }


def _describe_step(stage: str, graph: Graph, plan: Plan, ledger: Ledger) -> dict[str, Any]:
    """Describe a stage over the whole release: what made it, and what it took."""
    done = [unit for unit in plan.by_stage().get(stage, []) if unit.state == "done"]
    held = [ledger.commits[unit.unit] for unit in done if unit.unit in ledger.commits]
    options = graph.options.get(stage)
    # As committed: a plugin that was upgraded since has not made what it found done.
    origins = sorted({entry.distribution for entry in held if entry.distribution[0]})
    fields = {unit.unit.field for unit in done} - {RELEASE}
    return {
        "@id": f"#stage-{stage}",
        "@type": "CreateAction",
        "name": stage,
        "instrument": {"@id": "#survey_ml"},
        "additionalProperty": [
            _property("version", graph.spec(stage).version),
            _property("factory", graph.spec(stage).factory),
            _property("distribution", ", ".join(dict.fromkeys(name for name, _ in origins))),
            _property("distribution_version", ", ".join(version for _, version in origins)),
            _property("options", options.model_dump(mode="json") if options else {}),
            _property("keys_sha256", hash_json(sorted((*astuple(u.unit), u.key) for u in done))),
            _property("units", len(done)),
            _property("fields", len(fields)),
            _property("seconds", round(sum(entry.seconds for entry in held), 3)),
            _property("cpu_seconds", round(sum(entry.cpu_seconds for entry in held), 3)),
            _property("peak_memory_bytes", max((entry.peak_memory for entry in held), default=0)),
        ],
    }
