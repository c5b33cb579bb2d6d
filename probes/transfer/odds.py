"""Mean log odds, which combine accuracies on unequal tasks.

0 and 1 have no log odds, so they are moved inside by half an image, see ``inside``: n images cannot
distinguish a share of 1 from one above 1 - 1/2n.

Reference: Xu & Liu (2023), equation 6; S. Kornblith et al. (2019), section 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from probes.transfer import escape


def mlo(scores: ArrayLike) -> float:
    """Returns the mean over tasks of log(a / (1 - a)), for test scores in (0, 1).

    Raises:
      ValueError: a score is not in (0, 1); percentages must be divided by 100.
    """
    scores = np.asarray(scores, np.float64)
    wrong = scores[~((scores > 0) & (scores < 1))]
    if len(wrong) or not scores.size:
        raise ValueError(
            f"scores must lie strictly between 0 and 1, got {wrong.tolist() or 'none'}; divide "
            "percentages by 100, and move 0 and 1 by half an image (odds.inside)."
        )
    return float(np.mean(np.log(scores / (1 - scores))))


def mlog(scores: Sequence[float], pretraining_accuracy: float) -> float:
    """Returns the mean log odds gain: ``mlo`` minus the log odds of the pretraining accuracy.

    That is the accuracy on the test split of the pretraining data, in (0, 1).

    Raises:
      ValueError: as ``mlo``.
    """
    return mlo(scores) - mlo([pretraining_accuracy])


def inside(score: float, size: int | None, what: str, field: str) -> tuple[float, str]:
    """Returns a share of images in (0, 1), and a note if it was moved, else an empty string.

    0 becomes 1/2n and 1 becomes 1 - 1/2n, half of one of n images; other scores stay.

    Args:
      score: in [0, 1].
      size: n, or None if unknown.
      what: name of the score in messages.
      field: the place of n in messages: '"samples" into metrics.jsonl'.

    Raises:
      ValueError: the score is not a share, or it is 0 or 1 and n is unknown.

    >>> inside(1.0, 50, "pets", "test_size")
    (0.99, 'pets is 1, taken as 0.99: half of one of its 50 images below 1.')
    """
    near = 1e-12  # Sums of ratios that make up 1 differ from it by rounding.
    if not -near <= score <= 1 + near:
        raise ValueError(f"{what} is {score}, which is no share of images; divide per cent by 100.")
    if near < score < 1 - near:
        return score, ""
    end = round(score)
    if not size or size < 1:
        raise ValueError(
            f"{what} is {end}, which has no log odds. Of n images it would be taken half an image "
            f"from there, but n is not recorded; write it as {field}."
        )
    moved = abs(end - 1 / (2 * size))
    digits = len(str(2 * size)) + 1  # Enough to differ from 0 or 1.
    shown = f"{moved:.{digits}f}".rstrip("0")
    side = "below 1" if end else "above 0"
    return moved, f"{what} is {end}, taken as {shown}: half of one of its {size} images {side}."


def adjusted_score(row: Mapping[str, Any]) -> tuple[float, str]:
    """Returns ``inside`` of the score of a row of ``transfer.jsonl``."""
    field = '"test_size" into transfer.jsonl'
    return inside(row["score"], row.get("test_size"), escape.line(row["task"]), field)


def adjusted_accuracy(row: Mapping[str, Any]) -> tuple[float, str]:
    """Returns ``inside`` of the accuracy of a row of ``metrics.jsonl``."""
    field = '"samples" into metrics.jsonl'
    return inside(row["accuracy"], row.get("samples"), "its test accuracy", field)
