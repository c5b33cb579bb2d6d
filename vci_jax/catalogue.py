"""METRICS: the title, the meaning and the direction of each metric.

The one place where any of this is said. The tables of ``Report`` and of the command line, the
training program, the figures and the report page read it.

Legend: N samples, K classes, D feature dimension, p_k = n_k / N; Sigma_W, Sigma_B, Sigma_T the
within-class, between-class and total covariance; W the classifier, M the centred class means.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """One metric: its names, its meaning, its range and its source.

    Attributes:
      key: its name in reports, files and ``metrics=``.
      title: a short name for people, as on the axis of a figure.
      description: at most 28 letters, for a table.
      symbol: LaTeX.
      formula: plain text.
      direction: whether a smaller or a larger value is more collapsed; empty if neither.
      on_pretraining: what the value on the labels of pretraining says of transfer; may be empty.
      on_target: what the value on a target's own labels says of it; may be empty.
      range: the least and the largest value.
      scale: of an axis: ``"zero"`` is linear and starts at zero, ``"log"`` suits ratios that fall
        by orders of magnitude.
      invariances: maps of the features that leave the value alone: ``"linear"`` (every invertible
        one), ``"rotation"``, ``"scale"`` (one factor for all), ``"translation"``.
      needs: what it takes beside features and labels: ``"head"``, ``"logits"``, ``"blocks"``.
      source: where it is defined.
    """

    key: str
    title: str
    description: str
    symbol: str
    formula: str
    direction: Literal["smaller", "larger", ""]
    range: tuple[float, float]
    scale: Literal["linear", "zero", "log"]
    invariances: tuple[str, ...]
    source: str
    on_pretraining: str = ""
    on_target: str = ""
    needs: tuple[str, ...] = ()


# The direction depends on whose labels are used, which users confuse.
ON_PRETRAINING = (
    "On the labels of pretraining, less collapse (larger vci) went with better transfer in the "
    "paper."
)
ON_TARGET = (
    "On a target's own labels, smaller vci_adjusted means classes that are easier to separate."
)

_LARGER_TRANSFERS = "larger values went with better transfer in the paper, in both of its groups"
_NO_SIGN = "its correlation with transfer changed sign between the paper's two groups"
_SMALLER_SEPARATES = "smaller values mean that a linear map separates the classes more easily"
_LARGER_SEPARATES = "larger values mean that a linear map separates the classes more easily"
_AFFINE = ("linear", "rotation", "scale", "translation")
_RIGID = ("rotation", "scale", "translation")
_SHARE, _POSITIVE = (0.0, 1.0), (0.0, math.inf)
_XU = "Xu & Liu (2023), "
_PAPYAN = "Papyan, Han & Donoho (2020)"

_ALL = (
    Metric("vci", "VCI", "variability collapse index", r"\mathrm{VCI}",
           "1 - Tr[Sigma_T^+ Sigma_B] / min(D, K - 1)", "smaller", _SHARE, "zero", _AFFINE,
           _XU + "Definition 5.3", _LARGER_TRANSFERS, _SMALLER_SEPARATES),
    Metric("vci_adjusted", "VCI, adjusted for sample size", "VCI without sample-size bias",
           r"\mathrm{VCI}_{\mathrm{adj}}", "VCI of the population that the sample was drawn from",
           "smaller", _POSITIVE, "zero", _AFFINE, "vci_jax.adjusted", _LARGER_TRANSFERS,
           _SMALLER_SEPARATES),
    Metric("vci_interval", "Interval of the adjusted VCI", "its 95 % interval",
           r"\mathrm{CI}", "vci_adjusted times exp(-+ t se), se from leaving out blocks", "",
           _POSITIVE, "zero", _AFFINE, "vci_jax.interval", needs=("blocks",)),
    Metric("fuzziness", "Fuzziness", "Tr[Sigma_W Sigma_B^+] / K",
           r"\frac{1}{K}\mathrm{Tr}[\Sigma_W\Sigma_B^+]", "Tr[Sigma_W Sigma_B^+] / K", "smaller",
           _POSITIVE, "log", _RIGID, _PAPYAN + ", Figure 6", _NO_SIGN),
    Metric("squared_distance", "Squared distance", "Tr Sigma_W / Tr Sigma_B",
           r"\mathrm{Tr}\,\Sigma_W/\mathrm{Tr}\,\Sigma_B", "Tr Sigma_W / Tr Sigma_B", "smaller",
           _POSITIVE, "log", _RIGID, _XU + "Eq. 4", _NO_SIGN),
    Metric("squared_distance_adjusted", "Squared distance, adjusted", "the same, bias removed",
           r"(\mathrm{Tr}\,\Sigma_W/\mathrm{Tr}\,\Sigma_B)_{\mathrm{adj}}",
           "unbiased Tr Sigma_W / unbiased Tr Sigma_B", "smaller", _POSITIVE, "log", _RIGID,
           "vci_jax.metrics", _NO_SIGN),
    Metric("cosine_similarity", "Cosine similarity", "mean cosine within a class",
           r"1-d_{\mathrm{within}}", "mean over classes of || mean of h / ||h|| ||^2", "larger",
           _SHARE, "linear", ("rotation", "scale"),
           "Kornblith et al. (2021), Appendix; " + _XU + "Section 3", _NO_SIGN),
    Metric("class_separation", "Class separation", "1 - d_within / d_total",
           r"1-d_{\mathrm{within}}/d_{\mathrm{total}}", "1 - d_within / d_total", "larger",
           _SHARE, "linear", ("rotation", "scale"), "Kornblith et al. (2021), Eq. 11"),
    Metric("within_between_part", "Within-class variance along the class means",
           "variance along class means", r"\mathrm{Tr}[P\Sigma_W]",
           "Tr[P Sigma_W], P the projector on the columns of Sigma_B", "smaller", _POSITIVE, "log",
           ("rotation", "translation"), _XU + "Figure 1"),
    Metric("within_orthogonal_part", "Within-class variance across them",
           "variance orthogonal to them", r"\mathrm{Tr}[(I-P)\Sigma_W]", "Tr[(I - P) Sigma_W]", "",
           _POSITIVE, "log", ("rotation", "translation"), _XU + "Figure 1"),
    Metric("probe_mse", "Error of the least-squares probe", "loss of best linear probe",
           r"\mathrm{MSE}", "min over (W, b) of mean ||W h + b - e_y||^2 / 2", "smaller",
           (0.0, 0.5), "log", _AFFINE, _XU + "Theorem 5.1", on_target=_SMALLER_SEPARATES),
    Metric("probe_mse_adjusted", "Error of the least-squares probe, adjusted",
           "the same, bias removed", r"\mathrm{MSE}_{\mathrm{adj}}",
           "probe_mse that new data would confirm", "smaller", _POSITIVE, "log", _AFFINE,
           "vci_jax.metrics", on_target=_SMALLER_SEPARATES),
    Metric("h_score", "H-score", "Tr[Sigma_T^+ Sigma_B]", r"\mathrm{Tr}[\Sigma_T^+\Sigma_B]",
           "Tr[Sigma_T^+ Sigma_B], at most min(D, K - 1)", "larger", _POSITIVE, "linear", _AFFINE,
           "Bao et al. (2019)", on_target=_LARGER_SEPARATES),
    Metric("h_score_adjusted", "H-score, adjusted", "the same, bias removed",
           r"H_{\mathrm{adj}}", "min(D, K - 1) (1 - vci_adjusted)", "larger",
           (-math.inf, math.inf), "linear", _AFFINE, "vci_jax.metrics",
           on_target=_LARGER_SEPARATES),
    Metric("shrinkage_h_score", "H-score, shrunk", "H-score, Ledoit-Wolf", r"H_{\alpha}",
           "(1 - a) Tr[((1 - a) Sigma_T + a t I)^-1 Sigma_B]", "larger", _POSITIVE, "linear",
           _RIGID, "Ibrahim et al. (2021), Eq. 5", on_target=_LARGER_SEPARATES),
    Metric("cdnv", "CDNV", "pairwise variance / distance", r"\mathrm{CDNV}",
           "mean over pairs of (var_j + var_k) / (2 ||mu_j - mu_k||^2)", "smaller", _POSITIVE,
           "log", _RIGID, "Galanti et al. (2021), Definition 1"),
    Metric("cdnv_adjusted", "CDNV, adjusted", "the same, bias removed",
           r"\mathrm{CDNV}_{\mathrm{adj}}", "cdnv of unbiased variances and squared distances",
           "smaller", _POSITIVE, "log", _RIGID, "vci_jax.structure"),
    Metric("equinorm", "NC2: unequal norms of the class means", "spread of mean norms (NC2)",
           r"\mathrm{sd}\,\|m_k\|/\mathrm{mean}\,\|m_k\|",
           "standard deviation / mean of ||mu_k - mu_G||", "smaller", _POSITIVE, "linear", _RIGID,
           _PAPYAN + ", Figure 2"),
    Metric("equiangularity", "NC2: unequal angles of the class means",
           "spread of mean cosines (NC2)", r"\mathrm{sd}\cos(m_j,m_k)",
           "standard deviation of the cosines of pairs of centred class means", "smaller",
           _SHARE, "linear", _RIGID, _PAPYAN + ", Figure 3"),
    Metric("etf_error", "NC2: distance to the simplex", "distance to an ETF (NC2)",
           r"\|\tilde{M}\tilde{M}^\top-\tilde{E}\|_F",
           "|| MM^T / ||MM^T||_F - (I - 11^T / K) / sqrt(K - 1) ||_F", "smaller", (0.0, 2.0),
           "linear", _RIGID, "Zhu et al. (2021)"),
    Metric("self_duality", "NC3: distance of classifier and class means",
           "classifier vs means (NC3)", r"\|\tilde{W}-\tilde{M}\|_F",
           "|| W / ||W||_F - M / ||M||_F ||_F", "smaller", (0.0, 2.0), "linear",
           ("scale", "translation"), _PAPYAN + ", Figure 5", needs=("head",)),
    Metric("ncc_agreement", "NC4: nearest mean and classifier agree",
           "nearest = classifier (NC4)", r"\mathrm{P}[\mathrm{ncc}=\mathrm{argmax}\,z]",
           "share of rows whose nearest class mean is the classifier's choice", "larger", _SHARE,
           "linear", _RIGID, _PAPYAN + ", Figure 7", needs=("logits",)),
    Metric("effective_rank", "Effective rank", "exp(singular-value entropy)",
           r"\exp H(s)", "exp(-sum_i p_i log p_i), p_i = s_i / sum_j s_j", "", (1.0, math.inf),
           "linear", ("rotation", "scale"), "Roy & Vetterli (2007); Garrido et al. (2023)"),
    Metric("logme", "LogME", "log maximum evidence", r"\mathrm{LogME}",
           "log evidence of Bayesian linear regression on one-hot labels, per sample and class", "",
           (-math.inf, math.inf), "linear", ("rotation",), "You et al. (2021), Algorithm 3",
           on_target=_LARGER_SEPARATES),
    Metric("spectrum", "Spectrum", "eigenvalues of covariances", r"\lambda(\Sigma)",
           "eigenvalues of Sigma_B and of Sigma_T, descending", "", _POSITIVE, "log",
           ("rotation", "translation"), _XU + "Figure 2"),
)  # fmt: skip

METRICS: Mapping[str, Metric] = MappingProxyType({metric.key: metric for metric in _ALL})
