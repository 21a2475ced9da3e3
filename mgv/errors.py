"""Errors: what a person can mend. Each is shown as one line; its class gives the exit code.

MgvError             1   anything else a person can mend
├── UsageError       2   the command's own words are wrong (as for every typer command)
├── ConfigError      3   params.yaml, or a part that does not exist
├── MediaError       4   a video or subtitle file that cannot be read; AccessError: at the moment
├── WorkspaceError   5   no workspace here, or nothing in it yet
├── WeightsError     6   weights that are not at hand, or not what they should be
├── BusyError        7   another process holds the workspace
├── DataError        8   annotations that are wrong, or one video in two splits
├── TrainingError    9   the loss is no number
└── GateError       10   an evaluation is worse than the baseline allows
"""


class MgvError(Exception):
    """A fault that a person can mend: says what was found, what was expected and what to do."""

    exit_code = 1


class UsageError(MgvError):
    """The words of a command or call are wrong."""

    exit_code = 2


class ConfigError(MgvError):
    """params.yaml is wrong, or names a part that does not exist."""

    exit_code = 3


class MediaError(MgvError):
    """A video or subtitle file cannot be read."""

    exit_code = 4


class AccessError(MediaError):
    """A file cannot be read at the moment (permission, a network disk); its content may be good: it is tried again."""


class WorkspaceError(MgvError):
    """There is no workspace here, or nothing in it yet."""

    exit_code = 5


class WeightsError(MgvError):
    """Weights are missing, or are not what they should be."""

    exit_code = 6


class BusyError(MgvError):
    """Another process holds the workspace."""

    exit_code = 7


class DataError(MgvError):
    """Annotations are wrong, or put one video into two splits."""

    exit_code = 8


class TrainingError(MgvError):
    """Training went wrong: the loss is no number."""

    exit_code = 9


class GateError(MgvError):
    """An evaluation is worse than the baseline allows, or was made on another set."""

    exit_code = 10


def error_of(exit_code: int) -> type[MgvError] | None:
    """The error that a process ended with, by its exit code; None for the codes of faults that no person mends."""
    return next(
        (error for error in MgvError.__subclasses__() if error.exit_code == exit_code), None
    )
