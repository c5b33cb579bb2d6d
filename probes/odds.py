"""Mean log odds, by which accuracies on unequal tasks are put together.

Reference: Xu & Liu (2023), equation 6; S. Kornblith et al. (2019), section 3.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def mlo(scores: ArrayLike) -> float:
    """Returns the mean over tasks of log(a / (1 - a)), natural logarithm.

    Args:
      scores: test scores in (0, 1), one per task.

    Raises:
      ValueError: a score is not in (0, 1); percentages must be divided by 100.
    """
    scores = np.asarray(scores, np.float64)
    wrong = scores[~((scores > 0) & (scores < 1))]
    if len(wrong) or not scores.size:
        raise ValueError(
            f"scores must lie strictly between 0 and 1, got {wrong.tolist() or 'none'}; divide "
            "percentages by 100, and leave out tasks that are solved or failed entirely."
        )
    return float(np.mean(np.log(scores / (1 - scores))))


def mlog(scores: Sequence[float], pretraining_accuracy: float) -> float:
    """Returns the mean log odds gain: ``mlo`` minus the log odds of the pretraining accuracy.

    Args:
      scores: test scores in (0, 1), one per task.
      pretraining_accuracy: on the test split of the data the network was trained on, in (0, 1).

    Raises:
      ValueError: as ``mlo``.
    """
    return mlo(scores) - mlo([pretraining_accuracy])
