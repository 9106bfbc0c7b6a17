"""Train one network in several processes, on a GPU or a CPU each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from survey_ml.errors import SurveyMLError

if TYPE_CHECKING:
    from torch import nn

    from survey_ml.learning.training import Images, Objective, Recipe, State


class RunTeam(Protocol):
    """Does the same work in several processes: ``survey_ml.engine.team.run_team`` with its workers set."""

    def __call__(
        self, work: Callable[[Any, Callable[[Any], None]], None], payload: Any, hear: Callable[[Any], None]
    ) -> None:
        """Call ``work(payload, say)`` in each, and ``hear`` here with what they say."""


@dataclass(frozen=True)
class TeamTraining:
    """``train_network`` for a team.

    Parameters
    ----------
    run : RunTeam
    """

    run: RunTeam

    def __call__(
        self,
        network: nn.Module,
        train: Images,
        recipe: Recipe,
        *,
        validation: Images | None = None,
        objective: Objective | None = None,
        device: str = "cpu",
        state: State | None = None,
        report: Callable[[State], None] | None = None,
    ) -> State:
        """Train a network in place, as ``train_network`` does.

        Raises
        ------
        SurveyMLError
            As ``train_network``, or when the team ends without a word.
        """
        heard: list[State] = []

        def hear(now: State) -> None:
            heard[:] = [now]
            if report is not None:
                report(now)

        arguments = {
            "network": network, "train": train, "recipe": recipe, "validation": validation,
            "objective": objective, "state": state, "device": device,
        }  # fmt: skip
        if state is None or state.epoch < recipe.epochs:
            self.run(train_part, arguments, hear)
        done = heard[0] if heard else state
        if done is None:
            raise SurveyMLError("the workers ended without one epoch", "run the same command again")
        network.load_state_dict(done.best)
        network.eval()
        return done


def train_part(arguments: dict[str, Any], say: Callable[[Any], None]) -> None:
    """Train as one of a team, and say after each epoch how it stands: what a worker runs."""
    import torch

    from survey_ml.learning.team import Team
    from survey_ml.learning.training import train_network

    team = Team.join()
    torch.set_num_threads(1)
    device = arguments["device"]
    if device.startswith("cuda"):
        device = f"cuda:{torch.cuda.current_device()}"
    report = (lambda now: say(_to_cpu(now))) if team.rank == 0 else None
    train_network(**{**arguments, "device": device}, team=team, report=report)


def _to_cpu(value: Any) -> Any:
    """Return a copy of a state that a process without a GPU can read."""
    import torch

    from survey_ml.learning.training import State

    if isinstance(value, State):
        return State(**{name: _to_cpu(one) for name, one in vars(value).items()})
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {name: _to_cpu(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_to_cpu(one) for one in value]
    return value
