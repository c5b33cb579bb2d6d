"""The inputs of the golden cases: small, exact in binary, each with the reason it is there.

Every feature is a dyadic rational that float32 holds exactly, so the same numbers reach every
implementation; ``golden.json`` is these inputs with the values of ``exact``.

Legend: N samples, K classes, D dimensions, h a feature row, c a discriminant variance ratio.
"""

from typing import NamedTuple

from tools.conformance.points import (
    Row,
    blobs,
    cloud,
    corners,
    double,
    insert,
    noise,
    push,
    relabel,
    twice,
)

# Points with mean zero and covariance I, in two dimensions.
_SQUARE: list[Row] = [[1, 1], [1, -1], [-1, 1], [-1, -1]]


class Scenario(NamedTuple):
    """Features and labels to measure, and why.

    ``rtol`` is the relative error allowed in float64 and in float32 arithmetic; where the value
    is zero it is absolute. ``may_refuse``: a ValueError or NaN is as good as the value.
    ``leave_out`` names metrics that rounding of the inputs alone would spoil.
    """

    name: str
    reason: str
    features: list[Row]
    labels: list[int]
    dtype: str = "float64"
    rtol: tuple[float, float] = (1e-9, 1e-4)
    may_refuse: bool = False
    leave_out: tuple[str, ...] = ()


def scenarios() -> list[Scenario]:
    """All of them, simple ones first."""
    return [*_of_the_paper(), *_closed_forms(), *_shapes(), *_numerics(), *_conventions()]


def _of_the_paper() -> list[Scenario]:
    line = blobs([[1], [5]], [[[1], [-1]]] * 2)
    base = blobs([[1, 0], [-1, 0]], [_SQUARE] * 2)
    sheared = [[x + y, y] for x, y in base[0]]
    return [
        Scenario(
            "simplex_etf",
            "K = 4 one-hot means without noise: VCI 0, fuzziness 0, cosine similarity 1, ETF "
            "error 0, the limit of collapse.",
            *blobs(corners(4, 4), [[[0.0] * 4] * 3] * 4),
        ),
        Scenario(
            "two_classes_on_a_line",
            "Sigma_W = 1 and Sigma_B = 4: VCI 1/5, squared distance 1/4, fuzziness 1/8.",
            *line,
        ),
        Scenario(
            "observation_4_2",
            "Xu & Liu, Observation 4.2: Sigma_B = diag(1, 0), Sigma_W = I. VCI 1/2, K fuzziness 1.",
            *base,
        ),
        Scenario(
            "observation_4_2_sheared",
            "The same after A = [[1, 1], [0, 1]], which no linear probe notices: K fuzziness "
            "becomes 2, VCI stays 1/2.",
            sheared,
            base[1],
        ),
        Scenario(
            "proposition_4_1_apart",
            "Proposition 4.1 along a new axis: +-1000 v added to two equal samples of a class. "
            "Tr Sigma_W grows without bound, VCI stays 1/2, and fuzziness stays as well, since "
            "v is orthogonal to the class means.",
            *push(twice([[*row, 0] for row in base[0]], base[1]), 0, 4, [0, 0, 1000]),
        ),
        Scenario(
            "proposition_4_1_across",
            "Proposition 4.1 with v = (1, -1), unseen by a classifier along (1, 1), but not "
            "orthogonal to the class means: fuzziness grows without bound; VCI changes, and stays "
            "below 1.",
            *push(base, 0, 1, [1000, -1000]),
            rtol=(1e-8, 1e-2),  # the covariance has condition number 1e6, once squared
            leave_out=("class_separation",),
        ),
    ]


def _closed_forms() -> list[Scenario]:
    return [
        Scenario(
            "correlated",
            "Correlation 0.8 within classes, class means along (2, 1): the trace of an "
            "element-wise product leaves out the off-diagonal terms.",
            *blobs([[2, 1], [-2, -1]], [[[2, 1], [-2, -1], [1, 2], [-1, -2]]] * 2),
        ),
        Scenario(
            "collinear_means",
            "K = 4 class means on one line in D = 5: Sigma_B has rank 1, its other eigenvalues "
            "are rounding, and a pseudo-inverse that keeps them is wrong by many orders.",
            *blobs([[i, 2 * i, -i, i, 3 * i] for i in (0.0, 1.0, 2.5, 4.5)],
                    [noise(s, 7, 5) for s in range(4)]),
        ),
        Scenario(
            "one_direction_collapsed",
            "No within-class variance along the first axis, some along the second: one direction "
            "with c infinite, one with c finite, so VCI is half that of the second.",
            *blobs([[0, 0], [4, 2], [8, -2]], [[[0, 1], [0, -1], [0, 2], [0, -2]]] * 3),
        ),
        Scenario(
            "orthogonal_columns",
            "F^T F is diagonal, so the effective rank follows from its diagonal by hand.",
            [[3, 0, 0], [-3, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 1], [0, 0, -1]],
            [0, 1, 0, 1, 1, 0],
        ),
    ]  # fmt: skip


def _shapes() -> list[Scenario]:
    return [
        Scenario(
            "more_classes_than_dimensions",
            "K = 5, D = 2: the rank in VCI is min(D, K - 1) = 2.",
            *blobs([[4, 0], [-4, 2], [0, 6], [2, -6], [-5, -5]], cloud(5, 6, 2)),
        ),
        Scenario(
            "fewer_classes_than_dimensions",
            "K = 3, D = 6, N = 30: Sigma_B is singular, Sigma_T is not.",
            *blobs(corners(3, 6, 5), cloud(3, 10, 6)),
        ),
        Scenario(
            "fewer_samples_than_dimensions",
            "N = 6 < D = 8: features separate any labels, so VCI is exactly 0 and the adjusted "
            "value is undefined.",
            *blobs(corners(2, 8), cloud(2, 3, 8)),
        ),
        Scenario(
            "many_dimensions",
            "K = 6, N = 18, D = 32: 27 eigenvalues of Sigma_B are zero but for rounding, which "
            "in float32 is far above the 1e-15 where NumPy's default pseudo-inverse cuts.",
            *blobs([[x / 8 for x in row] for row in noise(9, 6, 32)], cloud(6, 3, 32)),
        ),
        Scenario(
            "one_dimension_less_than_samples",
            "N - 1 = D = 7: the last size at which VCI is exactly 0.",
            *blobs(corners(2, 7), cloud(2, 4, 7)),
        ),
        Scenario(
            "one_sample_a_class",
            "N = K = 4: no within-class variance at all.",
            noise(3, 4, 5),
            [0, 1, 2, 3],
        ),
        Scenario(
            "imbalanced",
            "Classes of 2, 5 and 11 samples: the two weightings differ, and mixing them (class "
            "weights about the sample mean) gives a third value.",
            *blobs([[3, 0, 1], [-2, 4, 0], [0, -3, 2]],
                    [noise(1, 2, 3), noise(2, 5, 3), noise(3, 11, 3)]),
        ),
        Scenario(
            "absent_classes",
            "Labels 0, 2 and 5 only: the three others must not count as classes with mean zero.",
            *relabel(blobs([[5, 1, 1], [1, 6, 1], [1, 1, 7]], cloud(3, 8, 3)), [0, 2, 5]),
        ),
        Scenario(
            "dead_features",
            "Two of five coordinates are constant, one of them not at zero: VCI as without them.",
            *insert(blobs([[2, 0, 1], [-1, 3, 0], [0, -2, 2]], cloud(3, 8, 3)), (0.0, 7.0)),
        ),
        Scenario(
            "duplicated_feature",
            "The last coordinate twice: Sigma_T is singular, VCI does not notice.",
            *double(blobs([[2, 0, 1], [-1, 3, 0], [0, -2, 2]], cloud(3, 8, 3))),
        ),
    ]  # fmt: skip


def _numerics() -> list[Scenario]:
    means: list[Row] = [[3, 0, 1, 0], [-2, 4, 0, 1], [0, -3, 2, -1]]
    plain = blobs(means, cloud(3, 9, 4))
    scales = (1.0, 2.0**-10, 2.0**10, 2.0**-20)
    quiet = [[[x * 2.0**-17 for x in row] for row in part] for part in cloud(3, 9, 4)]
    return [
        Scenario(
            "far_from_the_origin",
            "Mean at 1e4 standard deviations: E[h h^T] - m m^T loses eight digits.",
            [[x + offset for x, offset in zip(row, (16384, -8192, 32768, 20000), strict=True)]
             for row in plain[0]],
            plain[1],
            leave_out=("class_separation",),
        ),
        Scenario(
            "unequal_scales",
            "Coordinates scaled by 1, 2^-10, 2^10 and 2^-20: VCI as before, condition number of "
            "Sigma_T above 1e18. An unscaled pseudo-inverse drops two coordinates.",
            [[x * scale for x, scale in zip(row, scales, strict=True)] for row in plain[0]],
            plain[1],
            leave_out=("fuzziness", "within_between_part", "within_orthogonal_part",
                       "shrinkage_h_score"),
        ),
        Scenario(
            "deep_collapse",
            "Noise of about 1e-5 within classes, VCI about 1e-10: 1 - Tr / rank cancels.",
            *blobs(means, quiet),
            rtol=(1e-6, 1e-2),
            leave_out=("class_separation",),
        ),
        Scenario(
            "half_precision",
            "float16 features, each exact: sums must not be taken in float16.",
            [[x / 8 + 16 for x in row] for row in plain[0]],
            plain[1],
            dtype="float16",
            rtol=(1e-9, 3e-4),  # cosines are within 1e-3 of 1: one minus them costs digits
        ),
        Scenario(
            "integers",
            "int32 features, whose class means are not integers.",
            *plain,
            dtype="int32",
        ),
    ]  # fmt: skip


def _conventions() -> list[Scenario]:
    plain = blobs([[3, 0, 1], [-2, 4, 0]], cloud(2, 6, 3))
    return [
        Scenario(
            "equal_means",
            "Both classes have the same mean: VCI 1; a ratio with Tr Sigma_B below is undefined.",
            *blobs([[1, 1], [1, 1]], [_SQUARE, [[2 * x, y] for x, y in _SQUARE]]),
        ),
        Scenario(
            "one_class",
            "A single class: VCI compares classes and is undefined.",
            *blobs([[1, 2]], [_SQUARE]),
        ),
        Scenario(
            "all_equal",
            "All features the same: nothing to compare, undefined.",
            [[1, 2]] * 6,
            [0, 0, 0, 1, 1, 1],
        ),
        Scenario(
            "zero_vectors",
            "Some features are zero and have no direction: cosine 0 with everything.",
            [[0, 0], [3, 4], [3, 4], [4, -3], [0, 0], [4, -3]],
            [0, 0, 0, 1, 1, 1],
        ),
        Scenario(
            "unlabelled_rows",
            "Rows labelled -1: left out, or refused; never folded into a class.",
            [*plain[0], [50, -40, 30], [-60, 20, 10]],
            [*plain[1], -1, -1],
            may_refuse=True,
        ),
    ]
