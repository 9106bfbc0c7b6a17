"""The one error type users see: what failed, where, and what to type next."""

from __future__ import annotations

from dataclasses import dataclass


class SurveyMLError(Exception):
    """An error whose message a user can act on.

    Parameters
    ----------
    message : str
        What failed, and why.
    hint : str
        What to do about it.
    field, tile, stage : str
        Where it failed; empty where the place does not apply.
    """

    def __init__(
        self, message: str, hint: str = "", *, field: str = "", tile: str = "", stage: str = ""
    ) -> None:
        # All arguments go to Exception so that the error survives pickling between workers.
        super().__init__(message, hint, field, tile, stage)
        self.message = message
        self.hint = hint
        self.field = field
        self.tile = tile
        self.stage = stage

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.field, self.tile, self.stage))

    @property
    def place(self) -> str:
        """Where it failed, as ``field X, tile Y, stage Z``; empty when unknown."""
        parts = [("field", self.field), ("tile", self.tile), ("stage", self.stage)]
        return ", ".join(f"{kind} {name}" for kind, name in parts if name)

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text


def _rebuild(
    kind: type[SurveyMLError], message: str, hint: str, field: str, tile: str, stage: str
) -> SurveyMLError:
    """Recreate an error after pickling."""
    return kind(message, hint, field=field, tile=tile, stage=stage)


class ConfigError(SurveyMLError):
    """The release YAML or a command-line setting is wrong; nothing was done."""


class InputError(SurveyMLError):
    """An input file cannot be used; its field is set aside and the others go on."""


class ChangedError(InputError):
    """An input file was changed while it was read: none of its field can be used."""


class StoreError(SurveyMLError):
    """The release store cannot be read or written (full disk, permissions, lost object)."""


class UnreachableError(StoreError):
    """The store has not answered for minutes; every other unit of work would wait as long."""


class LeaseError(StoreError):
    """Another run works on the release: by the time this one asked, or since it was suspended."""


class DamagedError(StoreError):
    """Stored bytes are missing or differ from their checksum; they must be made again."""


class StoppedError(SurveyMLError):
    """The run was asked to end before its work was done; the same command goes on."""


class GraphError(SurveyMLError):
    """Stages cannot be put in an order: a missing producer, a cycle, a clash or a type mismatch."""


class PluginError(SurveyMLError):
    """A plugin cannot be loaded or breaks the contract."""


class WindowTooSmallError(SurveyMLError):
    """Raised by a tile stage that must see more of the field around its core.

    The engine reads a larger window and calls the stage again; at most the whole field.

    Parameters
    ----------
    halo : int
        Pixels wanted on each side of the core.
    """

    def __init__(self, halo: int, message: str = "", **place: str) -> None:
        super().__init__(message or f"a halo of {halo} px is needed", "", **place)
        self.halo = halo

    def __reduce__(self) -> tuple[object, ...]:
        return (WindowTooSmallError, (self.halo, self.message))


@dataclass(frozen=True)
class SetAside:
    """A field or tile that was left out of a run, and why; everything else went on."""

    field: str
    cause: str
    hint: str = ""
    tile: str = ""
    stage: str = ""

    @classmethod
    def from_error(cls, error: BaseException, *, field: str, tile: str = "", stage: str = "") -> SetAside:
        """Describe an error; anything but a `SurveyMLError` is named by its type."""
        if isinstance(error, SurveyMLError):
            return cls(field, error.message, error.hint, tile, stage)
        return cls(field, f"{type(error).__name__}: {error}", "", tile, stage)
