"""Every metric in exact arithmetic: rational numbers, and 50-digit decimals where a root enters.

Slow, for a few dozen samples, and written from the definitions alone with Python's standard
library: no floating point, no eigenvalues, no cutoff, and nothing of the rest of this package. It
is what the golden values are computed with, so that a sceptic can read one page and recompute them
(``python -m tools.conformance``).

Two facts replace the pseudo-inverses. Tr[A^+ B] with C(B) in C(A) is Tr[A_SS^-1 B_SS] for any
largest set S of independent coordinates of A, since the other coordinates are linear functions of
these. And if the rows of R span C(Sigma_B) with Sigma_B = R^T G R, then
Sigma_B^+ = R^T (R R^T)^-1 G^-1 (R R^T)^-1 R.

Legend: N samples, K classes present, D dimensions, p_k weight of class k, m_k = mu_k - mu_G.
"""

import decimal
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from tools.conformance.rational import (
    Matrix,
    Vector,
    diagonal,
    dot,
    gram,
    identity,
    independent,
    minus,
    outer,
    plus,
    product,
    sandwich,
    solve,
    square,
    trace,
    zeros,
)

Value = Fraction | decimal.Decimal | None  # None: undefined


class Summary(NamedTuple):
    """What the covariances are made of; lists run over the classes present."""

    rows: list[Matrix]  # the samples of each class
    weights: Vector
    offsets: Matrix  # m_k
    variances: Vector  # trace of each class' covariance
    within: Matrix
    between: Matrix
    total: Matrix


def metrics(
    features: Sequence[Sequence[float]], labels: Sequence[int], weighting: str
) -> dict[str, Value]:
    """Returns the exact metrics by name; rows with a negative label do not count."""
    data = summarize(features, labels, weighting)
    with decimal.localcontext(decimal.Context(prec=60)):
        values: dict[str, Value] = {}
        values |= _canonical_metrics(data)
        values |= _distance_metrics(data)
        values |= _cosine_metrics(data)
        values |= _structure_metrics(data)
        if _balanced(data) or weighting == "sample":
            values["shrinkage_h_score"] = _shrinkage_h_score(data)
        if diagonal(second := gram([row for rows in data.rows for row in rows])):
            values["effective_rank"] = _effective_rank([second[d][d] for d in range(len(second))])
    return values


def summarize(
    features: Sequence[Sequence[float]], labels: Sequence[int], weighting: str
) -> Summary:
    """The class means and covariances, exactly; floats are the fractions they stand for."""
    present = sorted({label for label in labels if label >= 0})
    pairs = list(zip(features, labels, strict=True))
    rows = [[[Fraction(x) for x in row] for row, y in pairs if y == label] for label in present]
    count, classes = sum(map(len, rows)), len(rows)
    weights = [
        Fraction(len(part), count) if weighting == "sample" else Fraction(1, classes)
        for part in rows
    ]
    means = [[sum(column) / len(part) for column in zip(*part, strict=True)] for part in rows]
    centre = [dot(weights, list(column)) for column in zip(*means, strict=True)]
    offsets = [minus(mean, centre) for mean in means]
    within = zeros(len(centre))
    variances = []
    for part, mean, weight in zip(rows, means, weights, strict=True):
        scatter = gram([minus(row, mean) for row in part])
        variances.append(trace(scatter) / len(part))
        within = plus(within, scatter, weight / len(part))
    between = zeros(len(centre))
    for offset, weight in zip(offsets, weights, strict=True):
        between = plus(between, gram([offset]), weight)
    total = plus(within, between, Fraction(1))
    return Summary(rows, weights, offsets, variances, within, between, total)


def _canonical_metrics(data: Summary) -> dict[str, Value]:
    """VCI, its adjusted form, the H-score and the probe's loss: Tr[Sigma_T^+ (.)]."""
    classes, dim = len(data.rows), len(data.total)
    axes = independent(data.total)
    small = [[data.total[i][j] for j in axes] for i in axes]
    solved = solve(small, [[offset[i] for offset in data.offsets] for i in axes])
    # q_k = m_k^T Sigma_T^+ m_k
    forms = [
        sum((data.offsets[k][i] * solved[a][k] for a, i in enumerate(axes)), Fraction(0))
        for k in range(classes)
    ]
    score = dot(data.weights, forms)
    explained = sum(
        (weight**2 * form for weight, form in zip(data.weights, forms, strict=True)), Fraction(0)
    )
    spread = sum((weight * (1 - weight) for weight in data.weights), Fraction(0))
    rank = min(dim, classes - 1)
    defined = rank > 0 and len(axes) > 0
    vci = 1 - score / rank if defined else None
    return {
        "vci": vci,
        "vci_adjusted": None if vci is None else _adjusted_vci(data, axes, vci, rank),
        "h_score": score if defined else None,
        "probe_mse": (spread - explained) / 2,
    }


def _adjusted_vci(data: Summary, axes: list[int], plain: Fraction, rank: int) -> Value:
    """VCI with the bias of the sample taken out, by the root t of one equation.

    With c_j > 0 the q between/within ratios, some perhaps infinite, N = 1 / sum_k p_k^2 / n_k,
    p = rank Sigma_T, w = N - K, z = p - q and e = K - 1 - q,

        T(t) = sum_j 1 / (t + c_j),     y(t) = (N T + z e / t) / (w - z + (1 - t) T)
        t w + (1 - t)(z + t T) + y(t) + e = N
        r = min(p, K - 1),   v = (y + r - q) / r,   u = v - v^2 (1 - v) / N
        vci_adjusted = (r u + rank - r) / rank

    where the left side increases up to the first t at which the denominator of y vanishes;
    and at most what noise would give, VCI (N - 1) / (N - 1 - max(p, K - 1)).
    """
    classes, features = len(data.rows), len(axes)
    size = 1 / dot([p * p for p in data.weights], [Fraction(1, len(part)) for part in data.rows])
    spare = size - 1 - max(features, classes - 1)
    if spare <= 0:
        return None
    number = len(independent(data.between))
    polynomial = _ratio_polynomial(data, axes, number)
    z, e, n = features - number, classes - 1 - number, _decimal(size)
    w = n - classes

    def average(t: decimal.Decimal) -> tuple[decimal.Decimal | None, bool]:
        """Y, and whether t is too far."""
        value, slope = decimal.Decimal(0), decimal.Decimal(0)
        for coefficient in reversed(polynomial):
            slope, value = slope * t + value, value * t + coefficient
        total = slope / value
        below = w - z + (1 - t) * total
        if below <= 0:
            return None, True
        y = (n * total + z * e / t) / below
        return y, t * w + (1 - t) * (z + t * total) + y + e > n

    low, high = decimal.Decimal("1e-6"), decimal.Decimal(1)
    while not average(high)[1]:
        low, high = high, 2 * high
    for _ in range(220):
        middle = (low + high) / 2
        low, high = (low, middle) if average(middle)[1] else (middle, high)
    y, _ = average(low)
    if y is None:
        return None
    inner = min(features, classes - 1)
    value = (y + inner - number) / inner
    share = min(max(value, decimal.Decimal(0)), decimal.Decimal(1))
    value -= share**2 * (1 - share) / n
    noise = _decimal(plain * (size - 1) / spare)
    return min((inner * value + rank - inner) / rank, noise)


def _ratio_polynomial(data: Summary, axes: list[int], number: int) -> list[decimal.Decimal]:
    """Coefficients, the constant first, of a multiple of the product of all t + c_j with c_j > 0.

    det(Sigma_B + t Sigma_W) on independent coordinates, over t^(p - q): T(t) is its logarithmic
    derivative. Found from its values at t = 1, 2, ..., q + 1.
    """
    points = [Fraction(t) for t in range(1, number + 2)]
    values = []
    for t in points:
        matrix = plus(data.between, data.within, t)
        small = [[matrix[i][j] for j in axes] for i in axes]
        values.append([_determinant(small) / t ** (len(axes) - number)])
    powers = [[t**m for m in range(number + 1)] for t in points]
    return [_decimal(row[0]) for row in solve(powers, values)]


def _determinant(matrix: Matrix) -> Fraction:
    """Product of the pivots; the matrix is positive definite, so they exist."""
    work, result = [list(row) for row in matrix], Fraction(1)
    for i, pivot in enumerate(work):
        result *= pivot[i]
        for j in range(i + 1, len(work)):
            factor = work[j][i] / pivot[i]
            work[j] = [x - factor * y for x, y in zip(work[j], pivot, strict=True)]
    return result


def _distance_metrics(data: Summary) -> dict[str, Value]:
    """Fuzziness, squared distance, and Sigma_W along and across the class means."""
    chosen = independent(outer(data.offsets))
    basis = [data.offsets[k] for k in chosen]
    size = len(basis)
    inverse = solve(outer(basis), identity(size))  # (R R^T)^-1
    # Sigma_B = R^T G R, so G = (R R^T)^-1 R Sigma_B R^T (R R^T)^-1
    middle = product(inverse, product(sandwich(basis, data.between), inverse))
    lifted = sandwich(basis, data.within)  # R Sigma_W R^T
    kernel = product(inverse, product(solve(middle, identity(size)), inverse))
    along = trace(product(inverse, lifted))
    between, within = trace(data.between), trace(data.within)
    return {
        "fuzziness": trace(product(kernel, lifted)) / len(data.rows) if size else None,
        "squared_distance": within / between if between else None,
        "within_between_part": along,
        "within_orthogonal_part": within - along,
    }


def _cosine_metrics(data: Summary) -> dict[str, Value]:
    """Cosine similarity and class separation; a zero vector has cosine 0 with everything."""
    means = []
    for part in data.rows:
        units = [[_decimal(x) / length for x in row] for row in part if (length := _length(row))]
        units = units or [[decimal.Decimal(0)] * len(part[0])]
        means.append([sum(column) / len(part) for column in zip(*units, strict=True)])
    classes = len(means)
    similarity = sum((square(mean) for mean in means), decimal.Decimal(0)) / classes
    centre = [sum(column) / classes for column in zip(*means, strict=True)]
    total = 1 - square(centre)
    defined = total > decimal.Decimal("1e-50")
    return {
        "cosine_similarity": similarity,
        "class_separation": 1 - (1 - similarity) / total if defined else None,
    }


def _structure_metrics(data: Summary) -> dict[str, Value]:
    """CDNV and NC2: how the class means are arranged."""
    classes = len(data.rows)
    pairs = [(j, k) for k in range(classes) for j in range(k)]
    gaps = [square(minus(data.offsets[j], data.offsets[k])) for j, k in pairs]
    blurs = [(data.variances[j] + data.variances[k]) / 2 for j, k in pairs]
    cdnv: Value = None
    if pairs:
        cdnv = decimal.Decimal("inf")
        if all(gaps):
            ratios = [blur / gap for blur, gap in zip(blurs, gaps, strict=True)]
            cdnv = sum(ratios, Fraction(0)) / len(pairs)
    lengths = [_length(offset) for offset in data.offsets]
    cosines = [
        _decimal(dot(data.offsets[j], data.offsets[k])) / (lengths[j] * lengths[k])
        for j, k in pairs
        if lengths[j] and lengths[k]
    ]
    directed = bool(pairs) and all(lengths)
    return {
        "cdnv": cdnv,
        "equinorm": _deviation(lengths) / _mean(lengths) if any(lengths) else None,
        "equiangularity": _deviation(cosines) if directed else None,
        "etf_error": _etf_error(data.offsets) if any(lengths) else None,
    }


def _etf_error(offsets: Matrix) -> decimal.Decimal:
    classes = len(offsets)
    products = outer(offsets)
    norm = sum((square(row) for row in products), Fraction(0))
    norm_root, root = _decimal(norm).sqrt(), decimal.Decimal(classes - 1).sqrt()
    error = decimal.Decimal(0)
    for j, row in enumerate(products):
        for k, entry in enumerate(row):
            simplex = _decimal(Fraction(int(j == k)) - Fraction(1, classes)) / root
            error += (_decimal(entry) / norm_root - simplex) ** 2
    return error.sqrt()


def _shrinkage_h_score(data: Summary) -> Value:
    """(1 - a) Tr[((1 - a) Sigma_T + a t I)^-1 Sigma_B], a of Ledoit & Wolf (2004)."""
    dim, count = len(data.total), sum(map(len, data.rows))
    target = trace(data.total) / dim
    if not target or len(data.rows) < 2:
        return None
    norm = sum((square(row) for row in data.total), Fraction(0))
    spread = norm / dim - target**2
    samples = [row for part in data.rows for row in part]
    centre = [sum(column) / count for column in zip(*samples, strict=True)]
    quartic = sum((square(minus(row, centre)) ** 2 for row in samples), Fraction(0))
    noise = min((quartic / count - norm) / (dim * count), spread)
    share = noise / spread if spread else Fraction(0)
    ridge = [[share * target * (i == j) for j in range(dim)] for i in range(dim)]
    shrunk = plus(ridge, data.total, 1 - share)
    axes = independent(shrunk)
    left = [[shrunk[i][j] for j in axes] for i in axes]
    right = [[data.between[i][j] for j in axes] for i in axes]
    return (1 - share) * trace(solve(left, right))


def _effective_rank(squares: Vector) -> decimal.Decimal:
    """Exponential of the entropy of the singular values, the roots of a diagonal F^T F."""
    roots = [_decimal(square).sqrt() for square in squares if square]
    if not roots:
        return decimal.Decimal("nan")
    shares = [root / sum(roots) for root in roots]
    return (-sum((share * share.ln() for share in shares), decimal.Decimal(0))).exp()


def _balanced(data: Summary) -> bool:
    return len({len(part) for part in data.rows}) == 1


def _decimal(value: Fraction) -> decimal.Decimal:
    return decimal.Decimal(value.numerator) / decimal.Decimal(value.denominator)


def _length(vector: Vector) -> decimal.Decimal:
    return _decimal(square(vector)).sqrt()


def _mean(values: list[decimal.Decimal]) -> decimal.Decimal:
    return sum(values, decimal.Decimal(0)) / len(values)


def _deviation(values: list[decimal.Decimal]) -> decimal.Decimal:
    mean = _mean(values)
    return _mean([(value - mean) ** 2 for value in values]).sqrt()
