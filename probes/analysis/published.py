"""The published tables: eleven ResNet-50 pretrained on ImageNet, their metrics and their transfer.

Six softmax temperatures, rising, then five strengths of the within-class cosine regulariser,
rising; the values of both are not published. One seed each.

Reference: Xu & Liu (2023), tables 1 and 2.
"""

import numpy as np

from probes.analysis.cohorts import METRICS, Study

TASKS = ("pets", "flowers", "aircraft", "cars", "dtd", "cifar10", "food101", "cifar100",
         "caltech101", "sun397")  # fmt: skip

# Scores in per cent and MLO (table 1); fuzziness, squared distance, cosine similarity, VCI,
# pretraining accuracy in per cent and MLOG (table 2).
_ROWS = """
90.80 95.03 58.85 64.73 74.47 93.10 75.45 77.14 84.90 62.44 1.445  15.93 2.829 0.4634 0.7960 75.40 0.3250
91.52 95.25 57.50 64.10 74.41 92.89 75.41 77.65 85.58 63.28 1.459  15.64 2.534 0.4856 0.7849 76.64 0.2704
91.64 94.66 57.67 64.42 74.63 92.58 74.97 77.10 85.59 63.30 1.441  13.45 2.141 0.5120 0.7552 77.53 0.2029
91.74 94.14 57.54 61.56 76.22 92.42 74.86 76.60 85.20 63.51 1.421  12.62 1.923 0.5371 0.7406 77.72 0.1711
92.35 93.52 55.64 61.60 75.37 92.37 74.20 76.07 84.49 62.74 1.390  11.83 1.742 0.5589 0.7280 77.83 0.1343
91.70 93.68 55.37 60.14 73.99 91.90 74.42 75.96 85.82 62.98 1.375  11.46 1.625 0.5767 0.7201 77.88 0.1161
90.86 92.01 51.07 55.14 74.36 91.79 72.90 75.44 85.19 62.01 1.282  13.15 2.780 0.4097 0.7216 77.52 0.0440
90.87 90.79 47.81 50.44 76.01 91.89 72.19 75.31 82.97 60.98 1.220  14.31 3.803 0.3556 0.7190 77.31 -0.0063
90.51 90.03 45.12 50.52 74.41 91.63 71.84 74.64 82.63 60.38 1.174  14.51 4.783 0.3551 0.7099 77.29 -0.0507
89.33 86.54 44.52 46.87 73.14 91.64 71.19 74.13 81.23 58.55 1.080  15.22 7.287 0.2794 0.6936 77.46 -0.1539
89.92 83.60 43.39 43.55 72.50 91.43 70.29 73.76 78.25 56.90 1.008  13.92 9.964 0.1720 0.6652 77.65 -0.2375
"""  # noqa: E501


def study() -> Study:
    """Returns the runs of the published tables.

    MLO and MLOG are the printed ones, from unrounded scores; those of the rounded scores
    (``cohorts.gains``) differ by up to 0.0004.
    """
    table = np.array([line.split() for line in _ROWS.strip().splitlines()], np.float64)
    groups = ["temperature"] * 6 + ["regulariser"] * 5
    return Study(
        names=[f"tau {i}" for i in range(1, 7)] + [f"lambda {i}" for i in range(1, 6)],
        groups=groups,
        settings=list(range(len(groups))),
        scores=dict(zip(TASKS, table[:, :10].T / 100, strict=True)),
        metrics=dict(zip(METRICS, table[:, 11:15].T, strict=True)),
        accuracy=table[:, 15] / 100,
        mlo=table[:, 10],
        mlog=table[:, 16],
        notes=[],
    )
