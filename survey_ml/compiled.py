"""Where compiled code is kept, so that it never outlives the code it was compiled from.

Numba looks only at the file of a function when it decides whether its compiled form still holds, and
a function contains those it calls from other files. After an update of one file the others would go on
with the old one inside. So each state of the sources has a cache folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
FOLDERS = ("stages", "simulation")
"""Parts of the package that hold compiled functions."""


def choose_cache(environment: dict[str, str], package: Path) -> Path:
    """Return the cache folder for the sources as they are.

    Parameters
    ----------
    environment : dict
        ``NUMBA_CACHE_DIR`` or ``XDG_CACHE_HOME`` say where caches go; else the home folder.
    package : Path
        Folder of the package.

    Returns
    -------
    Path
        It may not exist yet; Numba makes it, and falls back on its own choice where it cannot.
    """
    root = Path(environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "survey_ml"
    if given := environment.get(VARIABLE):
        root = Path(given)
        if root.name.startswith("compiled-"):
            root = root.parent  # what a parent process of ours chose
    return root / f"compiled-{hash_sources(package)}"


def hash_sources(package: Path) -> str:
    """Hash the names and contents of all files with compiled functions; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(str(path.relative_to(package)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def use_cache() -> None:
    """Tell Numba where to keep what it compiles; called before anything is compiled."""
    path = str(choose_cache(dict(os.environ), Path(__file__).parent))
    os.environ[VARIABLE] = path
    # Too late for the environment where somebody has imported Numba before us.
    if (numba := sys.modules.get("numba")) is not None:
        numba.config.CACHE_DIR = path
