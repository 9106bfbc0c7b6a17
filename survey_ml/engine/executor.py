"""Do stages on Ray: how many actors, of what size, and for how long they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from survey_ml.engine.cluster import Cluster, EngineError
from survey_ml.engine.hearing import Watch
from survey_ml.engine.pool import ActorPool
from survey_ml.engine.stop import Stop
from survey_ml.engine.work import Job, Report, StageWork
from survey_ml.stage import Resources, StageSpec


class RayExecutor:
    """Does stages on a Ray cluster, with one pool of actors at a time.

    Actors are kept from stage to stage while the next one needs no more than they have: starting
    a worker takes longer than many a tile.

    Parameters
    ----------
    workers : int or None
        Actors a stage at most.
    memory : int
        Bytes that all actors may declare together.
    per_call, retries
        Of the configuration.
    remaining : callable
        Returns the resources of the stages still to come, to size memory for them all.
    limit, recycle
        Seconds a unit may take, and bytes a worker may grow by; see `ActorPool`.
    watch : Watch, optional
        Hears of workers.
    stop : Stop, optional
        Ends the work early.
    """

    name = "ray"

    def __init__(
        self,
        cluster: Cluster,
        *,
        workers: int | None,
        memory: int,
        per_call: int,
        retries: int,
        remaining: Callable[[], Sequence[Resources]] = tuple,
        limit: float | None = None,
        recycle: int | None = None,
        watch: Watch | None = None,
        stop: Stop | None = None,
    ) -> None:
        self._limit, self._recycle, self._watch = limit, recycle, watch
        self._cluster, self._workers, self._memory = cluster, workers, memory
        self._per_call, self._retries, self._remaining = per_call, retries, remaining
        self._stop = stop or Stop()
        self._pool: ActorPool | None = None
        self._wide = Resources()

    @property
    def size(self) -> int:
        """Actors at work."""
        return self._pool.size if self._pool else 0

    def prepare(self, work: StageWork, count: int) -> None:
        """Have actors for ``count`` units of a stage; from one thread, before `run`."""
        want = work.spec.resources
        self.require(work.spec)
        have = self._pool
        if have is not None:
            fits = (
                (self._wide.cpus, self._wide.gpus) == (want.cpus, want.gpus)
                and self._wide.memory >= want.memory
                and have.size >= min(count, self.bound(self._wide))
            )
            if fits:
                return
            have.close()
            self._pool = None
        alike = [r.memory for r in self._remaining() if (r.cpus, r.gpus) == (want.cpus, want.gpus)]
        wide = Resources(want.cpus, want.gpus, max([want.memory, *alike]))
        # Fewer workers for the sake of a later stage would be a bad bargain.
        if self.bound(wide) < self.bound(want):
            wide = want
        size = max(1, min(count, self.bound(wide)))
        self._wide = wide
        available = self._cluster.resources()
        cpus = min(wide.cpus, max(1.0, available.get("CPU", 1.0)))
        memory = int(min(wide.memory, available.get("memory", wide.memory) / size))
        self._pool = ActorPool(
            self._cluster,
            Resources(cpus, wide.gpus, memory),
            size,
            per_call=self._per_call,
            retries=self._retries,
            limit=self._limit,
            recycle=self._recycle,
            watch=self._watch,
            stop=self._stop,
        )

    def require(self, spec: StageSpec) -> None:
        """Check that the cluster has what one worker of a stage cannot do without.

        Raises
        ------
        EngineError
            When it needs more GPU than there is.
        """
        have, need = self._cluster.resources().get("GPU", 0.0), spec.resources.gpus
        if need > have:
            raise EngineError(
                f"it needs {need:g} GPU a worker, the cluster has {have:g}",
                "run on a cluster with a GPU (RAY_ADDRESS names one), or with --engine local, which calls "
                f"it without one, or take {spec.name} out of `stages`",
                stage=spec.name,
            )

    def bound(self, need: Resources) -> int:
        """Return how many workers of a kind the cluster and the configuration allow."""
        have = self._cluster.resources()
        bounds = [have.get("CPU", 1.0) / need.cpus if need.cpus else 1e6, self._memory / need.memory]
        if need.gpus:
            bounds.append(have.get("GPU", 0.0) / need.gpus)
        if self._workers:
            bounds.append(self._workers)
        return max(1, int(min(bounds)))

    def run(self, work: StageWork, jobs: Sequence[Job], report: Report) -> None:
        """Do the jobs; from any thread, after `prepare`."""
        assert self._pool is not None
        self._pool.run(work, jobs, report)

    def close(self) -> None:
        """End the actors and, if it was started here, the cluster."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self._cluster.stop()
