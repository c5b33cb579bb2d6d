"""Errors that end a run, by cause, each with the exit code for the scheduler.

| code | meaning |
| 0 | done |
| 1 | any other error; the same command would fail again |
| 2 | a mistake of the caller: settings, damaged data, a directory in use |
| 3 | diverged: change the settings, in a new directory |
| 75 | interrupted (EX_TEMPFAIL of sysexits.h): the same command resumes |
"""


class RunError(Exception):
    """Ends a command with a sentence and an exit code instead of a traceback."""

    exit_code = 1


class ConfigError(RunError, ValueError):
    """A mistake in the settings."""

    exit_code = 2


class DataError(RunError):
    """Images or a description of them that are damaged or cannot be read."""

    exit_code = 2


class DamagedRunError(RunError):
    """A checkpoint or another file of a work directory that is damaged."""


class LockedError(RunError):
    """Another process is at work in the directory: wait for it, or choose another."""

    exit_code = 2


class Diverged(RunError):
    """The loss or the weights are beyond repair."""

    exit_code = 3


class Preempted(RunError):
    """The run was asked to end, and has saved what it needs to resume."""

    exit_code = 75


class WorkerError(RunError):
    """A process that reads images died, usually for lack of memory."""

    exit_code = 75


class ProcessLostError(BaseException):
    """Another process of the run has ended. Nothing that catches failures goes on without it."""

    exit_code = 75

    def __str__(self) -> str:
        """Says what to do."""
        return f"{super().__str__()}: see what it said. The same command goes on."
