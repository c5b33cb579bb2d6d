"""Every metric of a report in exact arithmetic, from the definitions alone.

Rational numbers throughout (FLINT's ``fmpq_mat``); where a definition needs eigenvalues, they are
roots of an exact characteristic polynomial, and roots and logarithms are taken of balls of 400 bits
(``arb``). There is no cutoff, no tolerance, and nothing of ``vci_jax``: a rank is a rank.

Three facts replace pseudo-inverses and eigenvectors:

- Tr[A^+ B] with C(B) in C(A) is Tr[A_SS^-1 B_SS] for any largest independent set S of coordinates.
- If the rows of R span C(Sigma_B) and Sigma_B = R^T G R, then
  Sigma_B^+ = R^T (R R^T)^-1 G^-1 (R R^T)^-1 R.
- (v_i . b)^2 summed over the eigenvectors v_i of one eigenvalue s_i of A are the weights w_i with
  sum_i w_i s_i^m = b^T A^m b for m = 0, 1, ..., a Vandermonde system.

Legend: N samples, K classes present, D dimensions, n_k samples of class k, p_k its weight,
m_k = mu_k - mu_G.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat, fmpq_poly, fmpz, fmpz_mat

from tools import oracle_adjusted

BITS = 400
ctx.prec = BITS

Values = dict[str, float | None]  # None: the definition gives no value


class Summary(NamedTuple):
    """Counts, means and covariances of the classes present."""

    rows: list[fmpq_mat]  # [n_k, D] for each class
    counts: list[int]
    weights: list[fmpq]
    means: fmpq_mat  # [K, D]
    offsets: fmpq_mat  # [K, D]
    variances: list[fmpq]
    within: fmpq_mat
    between: fmpq_mat
    total: fmpq_mat
    sampled: bool  # weighted by samples, or balanced


def metrics(
    features: np.ndarray,
    labels: np.ndarray,
    weighting: str,
    kernel: np.ndarray | None = None,
    pooled: bool = True,
) -> tuple[Values, dict[str, list[float]], Summary]:
    """Returns the metrics, the eigenvalues of both covariances, and what they were made from.

    Args:
      features: [N, D] of any real type; each number is the fraction that it stands for.
      labels: integers, every one of which counts.
      weighting: ``"sample"`` or ``"class"``.
      kernel: [D, K_all] of a classifier, columns of absent classes included.
      pooled: whether the raw second moment can be known (not in a class-weighted pass).
    """
    data = summarize(features, labels, weighting)
    roots = _Roots(data)
    values: Values = {}
    values |= _trace_metrics(data, roots)
    values |= _covariance_metrics(data)
    values |= _cosine_metrics(data)
    values |= _structure_metrics(data)
    values |= _debiased_distances(data)
    if kernel is not None:
        values["self_duality"] = _self_duality(data, kernel[:, np.unique(labels)])
    if pooled:
        values |= _raw_metrics(data)
        values["shrinkage_h_score"] = _shrinkage_h_score(data)
    spectrum = {"between": roots.between, "total": roots.total}
    return values, spectrum, data


def summarize(features: np.ndarray, labels: np.ndarray, weighting: str) -> Summary:
    """The class means and covariances, exactly."""
    rows, counts = [], []
    for label in np.unique(labels):
        part = features[labels == label]
        numbers = [fmpq(*x.as_integer_ratio()) for x in _python_numbers(part)]
        rows.append(fmpq_mat(*part.shape, numbers))
        counts.append(len(part))
    total = sum(counts)
    classes, dim = len(rows), features.shape[1]
    weights = [fmpq(n, total) if weighting == "sample" else fmpq(1, classes) for n in counts]
    ones = [fmpq_mat(1, n, [1] * n) for n in counts]
    sums = [(one * part).entries() for one, part in zip(ones, rows, strict=True)]
    means = fmpq_mat([[x / n for x in entries] for entries, n in zip(sums, counts, strict=True)])
    centre = fmpq_mat(1, classes, weights) * means
    offsets = means - fmpq_mat(classes, 1, [1] * classes) * centre
    within, variances = fmpq_mat(dim, dim), []
    for k, (part, n) in enumerate(zip(rows, counts, strict=True)):
        mean = fmpq_mat(1, dim, [means[k, d] for d in range(dim)])
        away = part - ones[k].transpose() * mean
        covariance = away.transpose() * away * fmpq(1, n)
        variances.append(trace(covariance))
        within += covariance * weights[k]
    between = offsets.transpose() * _diagonal(weights) * offsets
    sampled = weighting == "sample" or len(set(counts)) == 1
    return Summary(
        rows, counts, weights, means, offsets, variances, within, between, within + between, sampled
    )


class _Roots:
    """Eigenvalues: ``lost``, the 1 / (1 + c_j) other than 0 and 1, and both spectra."""

    def __init__(self, data: Summary) -> None:
        self.axes = independent(data.total)
        self.rank = len(self.axes)
        self.lost: list[arb] = []
        self.collapsed = self.equal = 0
        if self.rank:
            left = restrict(data.total, self.axes).inv() * restrict(data.within, self.axes)
            polynomial, self.collapsed = _divide_out(left.charpoly(), fmpq(0))
            polynomial, self.equal = _divide_out(polynomial, fmpq(1))
            self.lost = positive_roots(polynomial)
        self.between, self.total = (
            [float(root.mid()) for root in eigenvalues(matrix)]
            for matrix in (data.between, data.total)
        )


def _trace_metrics(data: Summary, roots: _Roots) -> Values:
    """VCI, H-score, the probe's loss and their adjusted forms: functions of the c_j."""
    classes, dim = len(data.counts), data.total.nrows()
    rank = min(dim, classes - 1)
    if not roots.rank:
        solved = fmpq_mat(0, 0)
        score, explained, seen = fmpq(0), fmpq(0), fmpq(0)
    else:
        axes = roots.axes
        offsets = fmpq_mat([[data.offsets[k, d] for d in axes] for k in range(classes)])
        solved = restrict(data.total, axes).solve(offsets.transpose())
        forms = [_entry(offsets, solved, k) for k in range(classes)]
        score = _dot(data.weights, forms)
        explained = _dot([p * p for p in data.weights], forms)
        seen = _dot([p * p for p in data.weights], _leverages(data))
    spread = 1 - _dot(data.weights, data.weights)
    values: Values = {"probe_mse": number((spread - explained) / 2)}
    defined = rank > 0 and roots.rank > 0
    values["vci"] = number(1 - score / rank) if defined else None
    values["h_score"] = number(score) if defined else None
    count = fmpq(sum(data.counts))
    if not data.sampled:
        count = fmpq(classes**2) / sum((fmpq(1, n) for n in data.counts), fmpq(0))
    adjusted = None
    if defined and count - 1 > max(roots.rank, classes - 1):
        adjusted = oracle_adjusted.adjusted(
            roots.lost, roots.collapsed, roots.rank, classes, count, rank, 1 - score / rank
        )
    values |= {"vci_adjusted": None, "h_score_adjusted": None, "probe_mse_adjusted": None}
    if adjusted is not None:
        values["vci_adjusted"] = number(adjusted)
        values["h_score_adjusted"] = number(rank * (1 - adjusted))
        plain, lost = 1 - score / rank, seen - explained
        share = lost * adjusted / plain if plain else lost
        values["probe_mse_adjusted"] = number((spread - seen + share) / 2)
    return values


def _leverages(data: Summary) -> list[fmpq]:
    """m_k^T Sigma_B^+ m_k, so that p_k times it is class k's share in the directions of Sigma_B."""
    axes, classes = independent(data.between), len(data.counts)
    if not axes:
        return [fmpq(0)] * classes
    offsets = fmpq_mat([[data.offsets[k, d] for d in axes] for k in range(classes)])
    solved = restrict(data.between, axes).solve(offsets.transpose())
    return [_entry(offsets, solved, k) for k in range(classes)]


def _covariance_metrics(data: Summary) -> Values:
    """Fuzziness, squared distance, and Sigma_W along and across the class means."""
    chosen = independent(data.offsets * data.offsets.transpose())
    between, within = trace(data.between), trace(data.within)
    values: Values = {
        "squared_distance": number(within / between) if between else None,
        "fuzziness": None,
        "within_between_part": 0.0,
        "within_orthogonal_part": number(within),
    }
    if chosen:
        dim = data.total.nrows()
        basis = fmpq_mat([[data.offsets[k, d] for d in range(dim)] for k in chosen])
        inverse = (basis * basis.transpose()).inv()  # (R R^T)^-1
        middle = inverse * (basis * data.between * basis.transpose()) * inverse  # G
        lifted = basis * data.within * basis.transpose()
        along = trace(inverse * lifted)
        fuzziness = trace(inverse * middle.inv() * inverse * lifted) / len(data.counts)
        values["fuzziness"] = number(fuzziness)
        values["within_between_part"] = number(along)
        values["within_orthogonal_part"] = number(within - along)
    return values


def _cosine_metrics(data: Summary) -> Values:
    """Cosine similarity and class separation; a zero vector has cosine 0 with everything."""
    means, classes = _unit_means(data), len(data.counts)
    similarity = sum((_square(mean) for mean in means), arb(0)) / classes
    total = 1 - _square(sum(means, arb_mat(1, means[0].ncols())) * (arb(1) / classes))
    separation = None if total < arb(2) ** -150 else number(1 - (1 - similarity) / total)
    return {"cosine_similarity": number(similarity), "class_separation": separation}


def class_cosines(data: Summary) -> list[float | None]:
    """The mean cosine of two samples of each class, self-pairs included."""
    return [number(_square(mean)) for mean in _unit_means(data)]


def _unit_means(data: Summary) -> list[arb_mat]:
    means = []
    for part in data.rows:
        rows = [arb_mat([[arb(x) for x in row]]) for row in part.tolist()]
        lengths = [arb(sum((x * x for x in row), fmpq(0))).sqrt() for row in part.tolist()]
        units = [r * (1 / n) for r, n in zip(rows, lengths, strict=True) if n != 0]
        means.append(sum(units, arb_mat(1, part.ncols())) * (arb(1) / part.nrows()))
    return means


def _structure_metrics(data: Summary) -> Values:
    """CDNV and NC2: how the class means are arranged."""
    classes = len(data.counts)
    products = data.offsets * data.offsets.transpose()
    pairs = [(j, k) for k in range(classes) for j in range(k)]
    cdnv: float | None = None
    if pairs:
        gaps = [products[j, j] + products[k, k] - 2 * products[j, k] for j, k in pairs]
        blurs = [(data.variances[j] + data.variances[k]) / 2 for j, k in pairs]
        ratios = [b / g for b, g in zip(blurs, gaps, strict=True) if g]
        cdnv = number(sum(ratios, fmpq(0)) / len(pairs)) if all(gaps) else math.inf
    lengths = [arb(products[k, k]).sqrt() for k in range(classes)]
    values: Values = {"cdnv": cdnv, "equinorm": None, "equiangularity": None, "etf_error": None}
    if any(products[k, k] for k in range(classes)):
        values["equinorm"] = number(_deviation(lengths) / _mean(lengths))
        simplex = fmpq_mat(classes, classes, _eye(classes)) - _ones(classes) * fmpq(1, classes)
        norm = arb(sum((x * x for x in products.entries()), fmpq(0))).sqrt()
        ideal = arb(classes - 1).sqrt()
        cells = zip(products.entries(), simplex.entries(), strict=True)
        away = [arb(x) / norm - arb(y) / ideal for x, y in cells]
        error = sum((x * x for x in away), arb(0))  # x ** 2 is NaN where x may be zero
        values["etf_error"] = number(error.sqrt() if error > 0 else arb(0))
    if pairs and all(products[k, k] for k in range(classes)):
        cosines = [arb(products[j, k]) / (lengths[j] * lengths[k]) for j, k in pairs]
        values["equiangularity"] = number(_deviation(cosines))
    return values


def _debiased_distances(data: Summary) -> Values:
    """Squared distance and CDNV with unbiased variances and squared distances of means."""
    values: Values = {"squared_distance_adjusted": None, "cdnv_adjusted": None}
    if min(data.counts) < 2:
        return values
    unbiased = [v * fmpq(n, n - 1) for v, n in zip(data.variances, data.counts, strict=True)]
    noise = [s / n for s, n in zip(unbiased, data.counts, strict=True)]
    blur = [p * (1 - p) * s for p, s in zip(data.weights, noise, strict=True)]
    between = trace(data.between) - sum(blur, fmpq(0))
    if between > 0:
        values["squared_distance_adjusted"] = number(_dot(data.weights, unbiased) / between)
    products, terms = data.offsets * data.offsets.transpose(), []
    for k in range(len(noise)):
        for j in range(k):
            gap = products[j, j] + products[k, k] - 2 * products[j, k] - noise[j] - noise[k]
            terms.append((unbiased[j] + unbiased[k]) / (2 * gap) if gap > 0 else None)
    if terms and None not in terms:
        values["cdnv_adjusted"] = number(sum(terms, fmpq(0)) / len(terms))
    return values


def _self_duality(data: Summary, kernel: np.ndarray) -> float | None:
    """|| W / ||W|| - M / ||M|| ||, as the root of 2 - 2 cos of the angle between them."""
    weights = [fmpq(*x.as_integer_ratio()) for x in _python_numbers(kernel.T)]
    means = data.offsets.entries()
    left, right, inner = _dot(weights, weights), _dot(means, means), _dot(weights, means)
    if not left or not right:
        return None
    square = 2 - 2 * arb(inner) / arb(left * right).sqrt()
    return number(square.sqrt() if square > 0 else arb(0))


def _shrinkage_h_score(data: Summary) -> float | None:
    """(1 - a) Tr[((1 - a) Sigma_T + a t I)^-1 Sigma_B], a of Ledoit & Wolf (2004)."""
    dim, count = data.total.nrows(), sum(data.counts)
    target = trace(data.total) / dim
    if not data.sampled or not target or len(data.counts) < 2:
        return None
    norm = _dot(data.total.entries(), data.total.entries())
    spread = norm / dim - target**2
    centre = fmpq_mat(1, len(data.counts), [fmpq(n, count) for n in data.counts]) * data.means
    quartic = fmpq(0)
    for part in data.rows:
        for row in part.tolist():
            quartic += sum(((x - c) ** 2 for x, c in zip(row, centre.entries(), strict=True)),
                           fmpq(0)) ** 2  # fmt: skip
    noise = min((quartic / count - norm) / (dim * count), spread)
    share = noise / spread if spread else fmpq(0)
    shrunk = data.total * (1 - share) + fmpq_mat(dim, dim, _eye(dim)) * (share * target)
    axes = independent(shrunk)
    product = restrict(shrunk, axes).inv() * restrict(data.between, axes)
    return number((1 - share) * trace(product))


def _raw_metrics(data: Summary) -> Values:
    """Effective rank and LogME: functions of the eigenvalues of F^T F, F not centred."""
    second = sum((part.transpose() * part for part in data.rows), fmpq_mat(*_shape(data.total)))
    distinct = eigenvalues(second, repeated=False)
    if not distinct:
        return {"effective_rank": None, "logme": None}
    roots = [value.sqrt() for value in eigenvalues(second)]
    total = sum(roots, arb(0))
    entropy = -sum((r / total * (r / total).log() for r in roots), arb(0))
    sums = [[x * n for x in row] for row, n in zip(data.means.tolist(), data.counts, strict=True)]
    with ctx.workprec(8 * BITS):  # their powers, up to D, must keep their digits
        precise = eigenvalues(second, repeated=False)
        energies = [_energies(second, fmpq_mat([row]), precise) for row in sums]
    evidence = oracle_adjusted.logme(
        np.array([float((root**2).mid()) for root in roots]),
        np.array([float(value.mid()) for value in distinct]),
        energies,
        data.counts,
        data.total.nrows(),
    )
    values: Values = {"effective_rank": number(entropy.exp())}
    # Where the published iteration does not settle there is no truth to compare with.
    return values if math.isnan(evidence) else values | {"logme": evidence}


def _energies(second: fmpq_mat, vector: fmpq_mat, distinct: list[arb]) -> tuple[np.ndarray, float]:
    """Sums of (u . y)^2 over the singular vectors u of each singular value, and what is left.

    With b = F^T y: w_i / s_i for the weights w_i of b in F^T F; n_k - b^T (F^T F)^+ b is left.
    """
    size, powers = len(distinct), []
    image = vector.transpose()
    for _ in range(size):
        powers.append(arb((vector * image)[0, 0]))
        image = second * image
    grid = arb_mat([[value**m for value in distinct] for m in range(size)])
    weights = grid.solve(arb_mat(size, 1, powers)).entries()
    energy = [w / s for w, s in zip(weights, distinct, strict=True)]
    axes = independent(second)
    chosen = fmpq_mat(1, len(axes), [vector[0, d] for d in axes])
    inside = (chosen * restrict(second, axes).solve(chosen.transpose()))[0, 0]
    return np.array([max(float(e.mid()), 0.0) for e in energy]), inside


def eigenvalues(matrix: fmpq_mat, repeated: bool = True) -> list[arb]:
    """The positive eigenvalues of a positive semi-definite matrix, descending."""
    polynomial, _ = _divide_out(matrix.charpoly(), fmpq(0))
    return positive_roots(polynomial, repeated)


def positive_roots(polynomial: fmpq_poly, repeated: bool = True) -> list[arb]:
    """The roots of a polynomial that has only positive ones, descending."""
    if polynomial.degree() < 1:
        return []
    roots = [(root.real, times) for root, times in polynomial.numer().complex_roots()]
    roots.sort(key=lambda pair: -float(pair[0].mid()))
    return [root for root, times in roots for _ in range(times if repeated else 1)]


def _divide_out(polynomial: fmpq_poly, root: fmpq) -> tuple[fmpq_poly, int]:
    """The polynomial without that root, and how often it had it."""
    factor, times = fmpq_poly([-root, 1]), 0
    while polynomial.degree() > 0 and polynomial(root) == 0:
        polynomial, times = polynomial // factor, times + 1
    return polynomial, times


def independent(matrix: fmpq_mat) -> list[int]:
    """A largest independent set of coordinates of a positive semi-definite matrix."""
    reduced, rank = matrix.rref()
    rows = reduced.tolist()[:rank]
    return [next(d for d, x in enumerate(row) if x) for row in rows]


def restrict(matrix: fmpq_mat, axes: Sequence[int]) -> fmpq_mat:
    """The square part of those coordinates."""
    return fmpq_mat([[matrix[i, j] for j in axes] for i in axes]) if axes else fmpq_mat(0, 0)


def trace(matrix: fmpq_mat) -> fmpq:
    """Sum of the diagonal."""
    return sum((matrix[i, i] for i in range(matrix.nrows())), fmpq(0))


def number(value: fmpq | arb) -> float:
    """The nearest float; zero and infinity only where float64 has no number."""
    if isinstance(value, arb):
        return float(value.mid())
    try:
        return int(value.p) / int(value.q)
    except OverflowError:
        return math.copysign(math.inf, int(value.p))


def _python_numbers(array: np.ndarray) -> list[int | float]:
    numbers: list[int | float] = array.ravel().tolist()
    return numbers


def _diagonal(entries: list[fmpq]) -> fmpq_mat:
    size = len(entries)
    return fmpq_mat([[entries[i] if i == j else 0 for j in range(size)] for i in range(size)])


def _eye(size: int) -> list[int]:
    return [int(i == j) for i in range(size) for j in range(size)]


def _ones(size: int) -> fmpq_mat:
    return fmpq_mat(fmpz_mat(size, size, [fmpz(1)] * size**2))


def _shape(matrix: fmpq_mat) -> tuple[int, int]:
    return matrix.nrows(), matrix.ncols()


def _entry(offsets: fmpq_mat, solved: fmpq_mat, k: int) -> fmpq:
    return sum((offsets[k, d] * solved[d, k] for d in range(offsets.ncols())), fmpq(0))


def _dot(left: Sequence[fmpq], right: Sequence[fmpq]) -> fmpq:
    return sum((a * b for a, b in zip(left, right, strict=True)), fmpq(0))


def _square(vector: arb_mat) -> arb:
    return sum((x * x for x in vector.entries()), arb(0))


def _mean(values: list[arb]) -> arb:
    return sum(values, arb(0)) / len(values)


def _deviation(values: list[arb]) -> arb:
    mean = _mean(values)
    variance = _mean([(value - mean) * (value - mean) for value in values])
    return variance.sqrt() if variance > 0 else arb(0)
