"""Write a plugin to start from: the template, under a name of one's own."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import sys
import tempfile
from pathlib import Path

import survey_ml
from survey_ml.allowed import normalise
from survey_ml.errors import ConfigError, PluginError

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
LONGEST = 40
"""Letters in a name at most, so that no line of the template grows too long."""
_TEXT = (".md", ".py", ".toml")
_PACKAGE, _DISTRIBUTION, _STAGE = "survey_ml_template", "survey-ml-template", "compactness"


def find_template() -> Path:
    """Return the folder of the template: inside an installed package, or in the repository.

    Raises
    ------
    PluginError
        When it is in neither place.
    """
    package = Path(survey_ml.__file__).parent
    for folder in (package / "template", package.parent / "plugins" / "template"):
        if (folder / "pyproject.toml").is_file():
            return folder
    raise PluginError("the plugin template is missing", "install survey-ml again")


def make_plugin(name: str, into: Path) -> Path:
    """Write a distribution called ``name`` into a folder; all of it or nothing.

    Parameters
    ----------
    name : str
        Of the distribution. Its package and its stage are called the same, with ``_`` for ``-``.
    into : Path
        The new folder is made inside this one.

    Returns
    -------
    Path
        The new folder.

    Raises
    ------
    ConfigError
        For a name that cannot be used, or a folder that exists.
    """
    package = check_name(name)
    target = into / name
    if target.exists() or target.is_symlink():
        raise ConfigError(
            f"{target} exists; nothing was written", "take another name or another folder (--into)"
        )
    _check_free(name, package)
    template = find_template()
    try:
        into.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=into))
    except OSError as error:
        raise ConfigError(
            f"{into} cannot be written: {error.strerror}", "give another folder (--into)"
        ) from None
    try:
        for source in sorted(template.rglob("*")):
            inside = source.relative_to(template)
            hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
            if source.is_file() and source.suffix in _TEXT and not hidden:
                path = scratch / str(inside).replace(_PACKAGE, package)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_rename(source.read_text("utf-8"), name, package), "utf-8")
        scratch.chmod(0o755)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return target


def check_name(name: str) -> str:
    """Return the package of a distribution's name.

    Raises
    ------
    ConfigError
        When it is no name, or Python or survey_ml needs it for something else.
    """
    package = name.replace("-", "_")
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise ConfigError(
            f"{name!r} is no name for a plugin",
            f"lower-case letters, digits and single hyphens, beginning with a letter, at most {LONGEST}",
        )
    taken = {"survey_ml", "survey_ml_template", "tests", "test", "src", "build", "dist"}
    if package in taken or package in sys.stdlib_module_names or keyword.iskeyword(package):
        raise ConfigError(f"{name} is a name that Python or survey_ml uses itself", "take another name")
    return package


def _check_free(name: str, package: str) -> None:
    """Check that no package and no stage here has the name already; imports no plugin."""
    from importlib.metadata import distributions

    from survey_ml.builtin import STAGES

    spec = importlib.util.find_spec(package)
    installed = {normalise(dist.name) for dist in distributions() if dist.name}
    if normalise(name) in installed or (spec is not None and spec.origin is not None):
        raise ConfigError(f"{name} is installed already", "take another name")
    if package in {stage.name for stage in STAGES}:
        raise ConfigError(f"{name} is the name of a built-in stage", "take another name")


def _rename(text: str, name: str, package: str) -> str:
    """Put the new names in: distribution, package, entry point, stage and product."""
    text = text.replace(_PACKAGE, package).replace(_DISTRIBUTION, name)
    text = re.sub(r"(?m)^template = ", f"{name} = ", text)
    # The class and its module keep their names: they say what the example computes.
    for before, after in (('"', '"'), ("`", "`"), ("  ", ":")):
        text = text.replace(f"{before}{_STAGE}{after}", f"{before}{package}{after}")
    return text
