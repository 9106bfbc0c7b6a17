"""Find what is to be checked: a distribution in a folder, or one that is installed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from survey_ml.allowed import identify, normalise
from survey_ml.errors import PluginError
from survey_ml.hookspecs import GROUP


@dataclass(frozen=True)
class Target:
    """A distribution and its plugins.

    Attributes
    ----------
    distribution, version : str
        From its metadata.
    plugins : mapping
        Name of a plugin to its module, as the entry points say.
    sources : tuple of Path
        Folders that its packages are imported from; empty for one that is installed.
    """

    distribution: str
    version: str
    plugins: Mapping[str, str]
    sources: tuple[Path, ...] = ()

    def install(self, site: Path) -> None:
        """Make the distribution's entry points known to processes that look in ``site``.

        Nothing is built and nothing is installed: the metadata are written beside the sources.
        """
        if not self.sources:
            return
        info = site / f"{self.distribution.replace('-', '_')}-{self.version}.dist-info"
        info.mkdir(parents=True)
        head = f"Metadata-Version: 2.1\nName: {self.distribution}\nVersion: {self.version}\n"
        (info / "METADATA").write_text(head)
        lines = [f"{name} = {module}" for name, module in self.plugins.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))


def find_target(target: str | Path) -> Target:
    """Return the distribution that a folder or a name stands for.

    Parameters
    ----------
    target : str or Path
        A folder with a ``pyproject.toml``, or the name of an installed plugin or distribution.

    Raises
    ------
    PluginError
        When there is nothing to check.
    """
    folder = Path(target).expanduser()
    if (folder / "pyproject.toml").is_file():
        return _read_folder(folder.absolute())
    if isinstance(target, Path) or folder.is_dir():
        if folder.is_dir() and not isinstance(target, Path) and (found := _find_installed(str(target))):
            return found
        raise PluginError(
            f"there is nothing to check in {target}: it has no pyproject.toml",
            "name the folder of a distribution, such as one made by `survey-ml plugins new`",
        )
    if found := _find_installed(str(target)):
        return found
    names = sorted({identify(entry)[0] for entry in entry_points(group=GROUP)})
    raise PluginError(
        f"{target} is neither a folder nor an installed plugin",
        f"installed: {', '.join(names) or 'none'}; or name the folder of a distribution",
    )


def _find_installed(name: str) -> Target | None:
    entries = list(entry_points(group=GROUP))
    wanted = normalise(name)
    hits = [e for e in entries if wanted in (normalise(e.name), normalise(identify(e)[0]))]
    if not hits:
        return None
    by_distribution = [e for e in hits if normalise(identify(e)[0]) == wanted]
    chosen: list[EntryPoint] = by_distribution or hits
    distribution, version, _ = identify(chosen[0])
    plugins = {e.name: e.value for e in chosen if identify(e)[0] == distribution}
    return Target(distribution, version, plugins)


def _read_folder(folder: Path) -> Target:
    path = folder / "pyproject.toml"
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PluginError(f"{path} cannot be read: {error}", "mend it first") from None
    project = given.get("project", {})
    poetry = given.get("tool", {}).get("poetry", {})
    plugins = project.get("entry-points", {}).get(GROUP) or poetry.get("plugins", {}).get(GROUP) or {}
    name = project.get("name") or poetry.get("name") or ""
    if not plugins or not name:
        raise PluginError(
            f"there is nothing to check in {folder}: its pyproject.toml has no entry point in {GROUP!r}",
            f'add [project.entry-points."{GROUP}"] with a line `name = "package.module"`',
        )
    version = str(project.get("version") or poetry.get("version") or "0")
    sources = dict.fromkeys(
        source for module in plugins.values() if (source := _find_source(folder, given, module)) is not None
    )
    # An absent module is a failed check, not nothing to check.
    return Target(name, version, dict(plugins), tuple(sources) or (folder,))


def _find_source(folder: Path, given: Mapping[str, Any], value: str) -> Path | None:
    """Return the folder that a module is imported from."""
    top = value.partition(":")[0].partition(".")[0]
    for root in _list_roots(folder, given):
        if (root / top).is_dir() or (root / f"{top}.py").is_file():
            return root
    return None


def _list_roots(folder: Path, given: Mapping[str, Any]) -> Iterator[Path]:
    """Yield where build tools are told that packages are: hatch, setuptools, poetry; then the custom."""
    tool = given.get("tool", {})
    wheel = tool.get("hatch", {}).get("build", {}).get("targets", {}).get("wheel", {})
    for package in wheel.get("packages", []):
        yield (folder / package).parent
    setuptools = tool.get("setuptools", {})
    if isinstance(places := setuptools.get("package-dir"), dict):
        yield from (folder / place for place in places.values())
    if isinstance(packages := setuptools.get("packages"), dict):
        yield from (folder / place for place in packages.get("find", {}).get("where", []))
    for package in tool.get("poetry", {}).get("packages", []):
        yield folder / package.get("from", "")
    yield folder / "src"
    yield folder
