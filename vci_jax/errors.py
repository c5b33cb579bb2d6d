"""What is said beside a number: caveats with a code for programs and a sentence for people."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Caveat(NamedTuple):
    """A reason to be careful with some metrics.

    Attributes:
      code: what is wrong, one of the names in ``vci_jax.caveats``; stable, for programs.
      metrics: the names of the metrics concerned.
      message: one sentence for people; its wording may change.
    """

    code: str
    metrics: tuple[str, ...]
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The same as a dictionary that JSON can hold."""
        return {"code": self.code, "metrics": list(self.metrics), "message": self.message}


def messages(caveats: Sequence[Caveat]) -> list[str]:
    """The sentences alone, in their order."""
    return [caveat.message for caveat in caveats]
