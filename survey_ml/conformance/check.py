"""Check a plugin, one child process after the other, and put what they note together."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from survey_ml.allowed import find_refusal, operator_list
from survey_ml.conformance.process import Ended, make_environment, run_child
from survey_ml.conformance.result import Report
from survey_ml.conformance.target import Target, find_target

TIMEOUT = 60.0
"""Seconds that one process of a plugin may take unless told."""
PREPARE_SECONDS = 1800.0
"""The same for the stages before it: where survey_ml runs for the first time it compiles for minutes."""
STAGE_CHECKS = (
    "factory", "options", "resources", "runs", "outputs", "deterministic", "order", "fresh_instance",
    "inputs_unchanged", "no_files", "no_network", "environment",
)  # fmt: skip
PLUGIN_CHECKS = ("importable", "hooks", "api", "specs", "light_import", "import_cost")


def check_plugin(
    target: str | Path,
    *,
    timeout: float = TIMEOUT,
    settings: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> Report:
    """Check whether a plugin keeps the contract.

    It is imported as any start of survey-ml would, and each of its stages is run on a small simulated
    release, with the stages that it needs before it. All of its code runs in processes of their own.

    Parameters
    ----------
    target : str or Path
        The folder of a distribution, which need not be installed, or the name of an installed plugin.
    timeout : float
        Seconds that one process may take.
    settings : sequence of str
        ``stage.key=value``, for options that have no default.
    tell : callable
        Is given what is done next, before each process: some take minutes.

    Returns
    -------
    Report
        One entry a check; ``report.raise_if_failed()`` for tests.

    Raises
    ------
    PluginError
        When there is nothing to check.
    """
    start = time.monotonic()
    found = find_target(target)
    report = Report(str(target), found.distribution, found.version)
    with tempfile.TemporaryDirectory(prefix="survey-ml-check-", ignore_cleanup_errors=True) as folder:
        _Checker(found, report, Path(folder).resolve(), timeout, list(settings), tell).check()
    report.seconds = time.monotonic() - start
    return report


def count_gpus() -> int:
    """Return the GPUs that this machine lets us see, without importing what would drive them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return 0
    devices = Path("/dev")
    return len(list(devices.glob("nvidia[0-9]*"))) or len(list(devices.glob("kfd")))


class _Checker:
    """One distribution being checked."""

    def __init__(
        self,
        target: Target,
        report: Report,
        folder: Path,
        timeout: float,
        settings: list[str],
        tell: Callable[[str], None],
    ) -> None:
        self.target, self.report, self.folder = target, report, folder
        self.timeout, self.settings, self.tell = timeout, settings, tell
        self.site = folder / "site"
        self.broken: set[str] = set()
        """Stages of this distribution that do not run: what reads them cannot be judged."""

    def check(self) -> None:
        """Make all checks."""
        self.site.mkdir()
        self.target.install(self.site)
        for name in self.target.plugins:
            only = operator_list()
            if refusal := find_refusal(self.target.distribution, self.target.version, name, only, None):
                hint = "ask whoever runs this machine; its code was not imported"
                self.report.add(f"plugin {name}", "allowed", False, refusal, hint)
        if self.report.failed:
            return
        offers = self._register()
        writers = {product: o["name"] for o in offers for product in o.get("writes", ())}
        stages = [offer for offer in offers if offer["kind"] == "stage"]
        for offer in [o for o in offers if o["kind"] != "stage"]:
            self._import(offer)
        # Those that others read come first.
        while stages:
            names = {offer["name"] for offer in stages}
            free = [o for o in stages if not {writers.get(p) for p in o["reads"]} & (names - {o["name"]})]
            stage = (free or stages)[0]
            stages.remove(stage)
            self._check_stage(stage, {writers[p] for p in stage["reads"] if p in writers})

    def _run(self, task: str, *, timeout: float | None = None, seed: str = "1", **given: Any) -> Ended:
        """Run a task in a process and take in the checks that it notes."""
        number = sum(1 for _ in self.folder.iterdir())
        given |= {"distribution": self.target.distribution, "settings": self.settings}
        ended = run_child(
            task,
            given | {"release": str(self.folder / "release")},
            folder=self.folder / f"{number}-{task}",
            environment=make_environment([*self.target.sources, self.site], PYTHONHASHSEED=seed),
            timeout=timeout or self.timeout,
        )
        for record in ended.records:
            if "check" in record:
                self.report.add(*record["check"])
        return ended

    def _register(self) -> list[dict[str, Any]]:
        """Import the plugins; return what they announce."""
        self.tell(f"importing {', '.join(sorted(self.target.plugins))}")
        ended = self._run("register", plugins=dict(self.target.plugins))
        for name in sorted(self.target.plugins):
            about = f"plugin {name}"
            if self.report.has(about, "importable"):
                continue
            if ended.finished:
                self.report.add(
                    about, "importable", False, "its entry point is not found", "install it again"
                )
            self._judge_end(about, [ended])
            self._fill(about, PLUGIN_CHECKS)
        return list(ended.data("offers", []))

    def _import(self, offer: dict[str, Any]) -> Ended:
        """Import what a spec names."""
        self.tell(f"importing {offer['kind']} {offer['name']}")
        ended = self._run("factories", offer=offer)
        about = f"{offer['kind']} {offer['name']}"
        if not ended.finished:
            self._judge_end(about, [ended])
        self._fill(about, ("factory",))
        return ended

    def _check_stage(self, offer: dict[str, Any], reads: set[str]) -> None:
        """Make all checks of one stage; one that fails early leaves the rest not judged."""
        name, about = offer["name"], f"stage {offer['name']}"
        self._import(offer)
        self._check_resources(about, offer)
        if lost := sorted(reads & self.broken):
            self.report.add(about, "runs", None, f"reads what stage {lost[0]} writes, which fails")
        elif not self.report.failed_of(about):
            self._try_stage(name, about, bool(offer["arrays"]) and offer["scope"] == "tile")
        self._fill(about, STAGE_CHECKS)
        if self.report.failed_of(about) or lost:
            self.broken.add(name)

    def _try_stage(self, name: str, about: str, windows: bool) -> None:
        (self.folder / "release").mkdir(exist_ok=True)
        self.tell(f"{about}: running what comes before it (minutes where survey_ml runs for the first time)")
        ended = self._run("prepare", stage=name, timeout=max(PREPARE_SECONDS, self.timeout))
        error = ended.data("error")
        if error or not ended.finished:
            cause, hint = error or (ended.explain(), "see what comes before it")
            self.report.add(about, "runs", False, cause, hint)
            return
        self.tell(f"{about}: running it on a small release")
        first = self._run("trial", stage=name)
        ends = [first]
        if (digests := first.data("digests")) is not None:
            self.tell(f"{about}: running it again in another process")
            second = self._run("repeat", stage=name, seed="4242")
            ends.append(second)
            again = second.data("digests")
            if again is not None:
                differing = _compare(digests, again)
                self.report.add(
                    about,
                    "deterministic",
                    not differing,
                    differing or "the same bytes in two processes with other hash seeds",
                    "draw from numpy.random.default_rng(inputs.seed), and sort sets before using them",
                )
        self._judge_end(about, ends)
        if windows:
            self._fill(about, ("tile_independent",))

    def _check_resources(self, about: str, offer: dict[str, Any]) -> None:
        """Say what a stage asks for; a GPU that is not here is said, and no fault of the plugin."""
        detail = f"{offer['cpus']:g} CPU, {offer['gpus']:g} GPU, {offer['memory'] / 2**30:.2g} GiB a worker"
        if offer["gpus"]:
            found = count_gpus()
            detail += f"; this machine has {found} GPU" if found else "; no GPU here: it is tried without one"
        self.report.add(about, "resources", True, detail)

    def _judge_end(self, about: str, ends: Sequence[Ended]) -> None:
        """Note whether processes kept their time and ended as they should."""
        late = [ended for ended in ends if ended.timed_out]
        dead = [ended for ended in ends if not ended.finished and not ended.timed_out]
        longest = max(ended.seconds for ended in ends)
        self.report.add(
            about,
            "time_limit",
            not late,
            late[0].explain() if late else f"{longest:.1f} s, at most {self.timeout:g} s a process",
            "it hangs, or it needs more time: --timeout SECONDS",
        )
        self.report.add(
            about,
            "process",
            not dead,
            dead[0].explain() if dead else "",
            "a stage returns or raises; it never ends its process",
        )

    def _fill(self, about: str, names: Sequence[str]) -> None:
        """Note what could not be judged, so that every check is listed."""
        for name in names:
            if not self.report.has(about, name):
                self.report.add(about, name, None, "not judged, because of what failed")


def _compare(one: dict[str, dict[str, str]], two: dict[str, dict[str, str]]) -> str:
    """Name the outputs that differ."""
    names = [
        f"{name} in {place}"
        for place, digests in one.items()
        for name, value in digests.items()
        if two.get(place, {}).get(name) != value
    ]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} differ" if names else ""
