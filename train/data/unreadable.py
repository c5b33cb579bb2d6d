"""The broken images of a run: skipped, counted once each, and named when they are too many."""

import logging
from collections.abc import Mapping

from train.config import ConfigError

_log = logging.getLogger(__name__)
_SHOWN = 10


class Unreadable:
    """The images that could not be read so far, by name, with the reason.

    Training and evaluation share it, so an image counts once however often it is met. Of several
    processes each counts those among its own share.
    """

    def __init__(self, limit: int) -> None:
        """Takes the number of images up to which the run goes on."""
        self._limit = limit
        self.reasons: dict[str, str] = {}

    def add(self, found: Mapping[str, str]) -> None:
        """Counts the images that are new, and says which they are.

        Raises:
          ConfigError: they are now more than the limit; names them.
        """
        for name, why in found.items():
            if name not in self.reasons and len(self.reasons) < self._limit:
                _log.warning("skipped, as it cannot be read: %s (%s)", name, why)
            self.reasons.setdefault(name, why)
        check(self.reasons, self._limit)


def check(reasons: Mapping[str, str], limit: int) -> None:
    """Raises ConfigError, with names and reasons, if there are more of them than the limit."""
    if len(reasons) <= limit:
        return
    lines = [f"  {name}: {reason}" for name, reason in reasons.items()]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"  and {len(lines) - _SHOWN} more"]
    listing = "\n".join(lines)
    raise ConfigError(
        f"{len(reasons)} image(s) cannot be read, more than --data.max_unreadable, which is "
        f"{limit}:\n{listing}\nRepair or remove them, or raise the limit to go on without them."
    )


def reason(error: Exception) -> str:
    """Returns why an image could not be read, without its name."""
    return getattr(error, "strerror", None) or str(error)
