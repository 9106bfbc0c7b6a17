"""What a release holds that its configuration no longer reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from glob import has_magic

from survey_ml.config import FieldOverride, LoadedConfig
from survey_ml.data.commit import list_commits, list_quarantine
from survey_ml.data.inputs import RESERVED, name_field
from survey_ml.data.lease import hold_lease
from survey_ml.data.residue import Item, is_aside, measure_folders
from survey_ml.data.store import ARRAYS
from survey_ml.engine.driver import Driver
from survey_ml.engine.progress import QuietProgress
from survey_ml.engine.work import RELEASE
from survey_ml.errors import InputError
from survey_ml.graph import build_graph
from survey_ml.plugins import Registry, get_manager
from survey_ml.products import Kind


def find_garbage(config: LoadedConfig, registry: Registry | None = None) -> list[Item]:
    """List outputs whose key the configuration does not reach; nothing is written or removed.

    A field that is named but cannot be processed now (its file is missing or damaged) keeps all it
    has, and with it what was made of the release as a whole.

    Parameters
    ----------
    config : LoadedConfig
        The release.
    registry : Registry, optional
        Where stages come from; all that is installed unless given.

    Returns
    -------
    list of Item
        Commits first: when they are gone, nothing vouches for the arrays that follow.

    Raises
    ------
    StoreError
        When there is no release.
    InputError
        When a pattern of `fields` finds nothing, so that nobody knows which fields it stands for.
    """
    registry = registry or get_manager()
    driver = Driver(config, build_graph(config, registry), registry, stages=None, progress=QuietProgress())
    driver.look()
    driver.store.describe()
    return _Search(config, driver).list_items()


def collect_garbage(
    config: LoadedConfig, tell: Callable[[Sequence[Item]], None], registry: Registry | None = None
) -> list[Item]:
    """Remove what `find_garbage` lists, after telling it.

    Raises
    ------
    LeaseError
        When somebody is at work on the release; then nothing is removed.
    """
    from survey_ml.data.store import ReleaseStore

    store = ReleaseStore.open(config.out)
    store.describe()
    with hold_lease(store.medium, config.release.engine.lease_seconds) as lease:
        found = find_garbage(config, registry)
        tell(found)
        for item in found:
            lease.check()
            store.medium.remove(item.path)
    return found


class _Search:
    """One look at a release."""

    def __init__(self, config: LoadedConfig, driver: Driver) -> None:
        self.plan = driver.plan()
        self.medium, self.store = driver.store.medium, driver.store
        self.commits = list_commits(self.store)
        self.units = {state.unit: state.key for state in self.plan}
        self.stages = {spec.name for spec in driver.graph.order}
        self.arrays = {p.name for s in driver.graph.order for p in s.writes if p.kind is Kind.ARRAY}
        self.bad = {name for entry in self.plan.set_aside if (name := _name_aside(config, entry.field))}
        self.good = {source.field.name for source in driver.sources} - self.bad

    def list_items(self) -> list[Item]:
        whole = dict(self._find_fields())
        units = dict(self._find_units())
        shards = [path for path, _ in self.medium.walk_files(ARRAYS) if not is_aside(path)]
        arrays = dict(self._find_arrays(shards, {path for path in units if path.count("/") == 4}))
        causes = {**units, **dict(self._find_quarantine()), **arrays, **whole}
        # What lies in a folder that goes as a whole is not told once more.
        chosen = {p: why for p, why in causes.items() if not any(a in causes for a in _list_parents(p))}
        files = [file for top in ("units", "quarantine", ARRAYS) for file in self.medium.walk_files(top)]
        sizes = measure_folders(files, chosen)
        order = {"units": 0, "quarantine": 1, ARRAYS: 2}
        return [
            Item(path, sizes[path], chosen[path])
            for path in sorted(chosen, key=lambda path: (order[path.partition("/")[0]], path))
        ]

    def _find_fields(self) -> Iterator[tuple[str, str]]:
        for top in ("units", "quarantine", ARRAYS):
            for name in self.medium.list_folder(top):
                known = name in self.good or name in self.bad or name in RESERVED or name == RELEASE
                if not known and not is_aside(name):
                    yield f"{top}/{name}", "its field is no longer named"

    def _find_units(self) -> Iterator[tuple[str, str]]:
        for field in [*sorted(self.good), RELEASE]:
            for stage in self.medium.list_folder(f"units/{field}"):
                if stage not in self.stages and not is_aside(stage):
                    yield f"units/{field}/{stage}", "its stage is no longer named"
        for unit, commit in self.commits.items():
            if not self._may_judge(unit.field) or unit.stage not in self.stages:
                continue
            if unit not in self.units:
                yield commit.folder, "its tile is no longer there"
            elif self.units[unit] != commit.key:
                yield commit.folder, "made by other code, options or inputs than a run would use now"

    def _find_arrays(self, files: Sequence[str], gone: set[str]) -> Iterator[tuple[str, str]]:
        kept = {
            path for commit in self.commits.values() if commit.folder not in gone for path in commit.files
        }
        for path in files:
            parts = path.split("/")
            if len(parts) < 4 or parts[1] not in self.good:
                continue
            if parts[2] not in self.arrays:
                yield "/".join(parts[:3]), "an array of a stage that is no longer named"
            elif parts[3] == "c" and path not in kept:
                yield path, "no commit vouches for it"

    def _find_quarantine(self) -> Iterator[tuple[str, str]]:
        for unit in list_quarantine(self.store):
            if self._may_judge(unit.field) and unit not in self.units:
                yield f"quarantine/{unit.field}/{unit.stage}/{unit.tile}.json", "its unit is no longer there"

    def _may_judge(self, field: str) -> bool:
        """Whether the plan knows what a field should hold; the release's own depends on all of them."""
        return not self.bad if field == RELEASE else field in self.good


def _name_aside(config: LoadedConfig, name: str) -> str:
    """Return the field that an entry set aside stands for.

    Raises
    ------
    InputError
        When it is a pattern that matches nothing now.
    """
    for entry in config.release.fields:
        override = FieldOverride(path=entry) if isinstance(entry, str) else entry
        if name not in (override.path, override.name):
            continue
        if override.name is None and has_magic(override.path):
            raise InputError(
                f"{override.path} matches nothing, so which fields it stands for is not known",
                "Put the images back, or take the pattern out of `fields`, then run this again.",
            )
        return override.name or name_field(override.path)
    return name


def _list_parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
