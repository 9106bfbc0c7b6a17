"""What the package needs at run time comes under licences that let anybody use, change and pass it on."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("ray", "s3", "xarray", "demo", "learning")
"""What users install; `peers` and `dev` are never part of it."""

ALLOWED = (
    "Apache", "BSD", "0BSD", "ISC", "MIT", "MPL-2.0", "Mozilla Public License 2.0", "PSF", "Python-2.0",
    "Python Software Foundation", "CNRI-Python", "HPND", "Unlicense", "Zlib", "CC0", "3-Clause BSD",
    "BSL-1.0",
)  # fmt: skip
"""How a licence may begin; of several at once all must."""

EXCEPTIONS = {
    # The Artistic License may be chosen. It comes with Prefect, through python-slugify.
    "text-unidecode": "Artistic License",
}
"""Package to the licence under which it is used, where it names others, too."""


def walk(name: str, extras: frozenset[str], found: dict[str, Distribution]) -> None:
    """Collect a distribution and what it needs here."""
    name = canonicalize_name(name)
    dist = distribution(name)
    found[name] = dist
    for text in dist.requires or ():
        need = Requirement(text)
        wanted = need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras | {""})
        if wanted and canonicalize_name(need.name) not in found:
            try:
                walk(need.name, frozenset(need.extras), found)
            except PackageNotFoundError:
                pytest.fail(f"{name} needs {need.name}, which is not installed")


def read_licence(dist: Distribution) -> str:
    """Return what the metadata say, the most exact first."""
    if expression := dist.metadata.get("License-Expression"):
        return expression
    prefix = "License :: "
    kinds = [k for k in dist.metadata.get_all("Classifier") or () if k.startswith(prefix)]
    names = [k.rpartition(" :: ")[2] for k in kinds if k != "License :: OSI Approved"]
    return " AND ".join(names) or (dist.metadata.get("License") or "").strip().splitlines()[0]


def is_allowed(licence: str) -> bool:
    """Tell whether all parts of an expression are allowed, one of those that may be chosen from."""
    if " AND " in (bare := re.sub(r"\([^()]* OR [^()]*\)", lambda m: m[0].replace(" ", "_"), licence)):
        return all(is_allowed(part.strip("()").replace("_", " ")) for part in bare.split(" AND "))
    return any(part.strip("() ").startswith(ALLOWED) for part in licence.split(" OR "))


def test_all_that_is_needed_has_a_free_licence():
    found: dict[str, Distribution] = {}
    walk("survey-ml", frozenset(EXTRAS), found)
    assert {
        "prefect",
        "ray",
        "zarr",
        "obstore",
        "xarray",
        "h5py",
        "pydantic-core",
        "torch",
        "openvino",
    } <= found.keys()
    assert not {"bdsf", "moto", "pytest"} & found.keys()
    said = {name: read_licence(dist) for name, dist in found.items()}
    bad = {name: licence for name, licence in said.items() if not is_allowed(licence)}
    assert bad.keys() == EXCEPTIONS.keys(), f"read these licences: {bad}"
    for name, chosen in EXCEPTIONS.items():
        assert chosen in said[name]


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0 OR MIT", True),
        ("MIT AND GPL-3.0-or-later", False),
        ("MIT AND (GPL-3.0 OR AGPL-3.0)", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("", False),
    ],
)
def test_expressions_are_read(licence, allowed):
    assert is_allowed(licence) is allowed
