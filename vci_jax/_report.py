"""Moments in, plain numbers out: every metric in float64 on the host, with reasons for gaps.

Accelerators have no fast float64 and compile ``eigh`` for minutes, while the state is a few D x D
matrices: so the finish moves it to the host CPU and runs the same functions there.

Legend: K classes, D feature dimension, N samples, P partial states.
"""

import copy
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vci_jax import (
    _table,
    caveats,
    facts,
    linalg,
    metrics,
    precision,
    progress,
    solves,
    transferability,
)
from vci_jax._compile import quick_jit
from vci_jax.arrays import check_head
from vci_jax.catalogue import METRICS
from vci_jax.counts import MAX_COUNT
from vci_jax.errors import Caveat, VCIError, messages, optional
from vci_jax.geometry import Geometry, Weighting, factorize
from vci_jax.interval import LeaveOneOut, Options, interval_of, leave_one_out, of_all
from vci_jax.moments import ClassMoments, merge_axis
from vci_jax.storage import to_host
from vci_jax.written import json_ready

# The metrics of the paper: two are traces, which ``solves`` has, and two are sums.
_PAPER = ("vci", "fuzziness", "squared_distance", "cosine_similarity")

Head = tuple[jax.typing.ArrayLike, jax.typing.ArrayLike]


class Report(dict[str, Any]):
    """The metrics of one set of features: a dictionary of plain numbers that can be read.

    Keys come in the order of ``METRICS``, ``vci`` first, then what is known of the data; each is an
    attribute as well, ``report.vci``. ``report["warnings"]`` are the messages of the caveats.

    Attributes:
      jackknife: what ``compare`` needs of blocks of the data; None without blocks.

    Example:
      >>> import vci_jax
      >>> report = vci_jax.measure_arrays([[0.0], [1.0], [5.0], [7.0]], [0, 0, 1, 1], blocks=1)
      >>> round(report.vci, 4), report["samples"], "spectrum" in report
      (0.0763, 4, True)
      >>> list(report.scalars("test/"))[:3]
      ['test/vci', 'test/vci_adjusted', 'test/fuzziness']
      >>> [caveat.code for caveat in report.caveats]
      ['small_sample']
    """

    def __init__(self, values: Mapping[str, Any], jackknife: LeaveOneOut | None = None) -> None:
        first = [name for name in METRICS if name in values]
        super().__init__({name: values[name] for name in dict.fromkeys([*first, *values])})
        self.jackknife = jackknife

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            needs = " and ".join(METRICS[name].needs) if name in METRICS else ""
            hint = f": it needs {needs}" if needs else ""
            raise AttributeError(f"The report has no {name}{hint}.") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __repr__(self) -> str:
        return _table.report_text(self)

    def _repr_html_(self) -> str:
        return _table.report_html(self)

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """Reasons to be careful, each with its code, the metrics it concerns, and a sentence."""
        entries: Sequence[Mapping[str, Any]] = self.get("caveats", ())
        return tuple(Caveat(c["code"], tuple(c["metrics"]), c["message"]) for c in entries)

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """The metrics as plain floats under flat names, for TensorBoard, W&B or a CSV file.

        Undefined values are NaN, so that every row of a file has the same columns. An interval
        becomes ``vci_interval/low`` and ``vci_interval/high``.
        """
        flat: dict[str, float] = {}
        for name in METRICS:
            value = self.get(name)
            if isinstance(value, float):
                flat[prefix + name] = value
            elif name == "vci_interval" and value is not None:
                flat |= {f"{prefix}{name}/low": value[0], f"{prefix}{name}/high": value[1]}
        return flat

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary, a copy."""
        return copy.deepcopy(dict(self))

    def to_json(self) -> str:
        """One JSON object on one line; undefined values are null, as JSON has no NaN."""
        return as_json(self)

    def to_pandas(self) -> Any:
        """A ``DataFrame`` with a row for each metric.

        Raises:
          MissingPackageError: without pandas.
        """
        pandas = optional("pandas", "Report.to_pandas")
        names = [name for name in METRICS if isinstance(self.get(name), float)]
        low, high = self.get("vci_interval", (math.nan, math.nan))
        ends = {"vci_adjusted": (low, high)}
        notes = {n: "; ".join(c.message for c in self.caveats if n in c.metrics) for n in names}
        return pandas.DataFrame(
            {
                "value": [self[name] for name in names],
                "low": [ends.get(name, (math.nan, math.nan))[0] for name in names],
                "high": [ends.get(name, (math.nan, math.nan))[1] for name in names],
                "more_collapsed": [METRICS[name].direction for name in names],
                "title": [METRICS[name].title for name in names],
                "caveats": [notes[name] for name in names],
            },
            index=pandas.Index(names, name="metric"),
        )

    def plot(self, ax: Any = None) -> Any:
        """Draws the eigenvalues of Sigma_T and Sigma_B; returns the axes of matplotlib.

        Raises:
          MissingPackageError: without matplotlib.
          VCIError: for a report without ``spectrum``.
        """
        if "spectrum" not in self:
            raise VCIError("Report.plot draws the spectrum: measure without metrics= or only=.")
        ax = optional("matplotlib.pyplot", "Report.plot").subplots()[1] if ax is None else ax
        for key, label in (("total", r"$\Sigma_T$"), ("between", r"$\Sigma_B$")):
            values = [value for value in self["spectrum"][key] if value > 0]
            ax.plot(range(1, len(values) + 1), values, marker=".", label=label)
        ax.set(xscale="log", yscale="log", xlabel="index", ylabel="eigenvalue")
        shown = [f"{METRICS[n].title} {_table.number(self[n], 4)}" for n in ("vci",) if n in self]
        ax.set_title(", ".join(shown))
        ax.legend()
        return ax


def as_json(value: Any) -> str:
    """One line of JSON; NaN and infinity are null."""
    return json.dumps(json_ready(value), allow_nan=False)


def report(
    moments: ClassMoments,
    *,
    weighting: Weighting = "sample",
    head: Head | None = None,
    confidence: float = 0.95,
    only: Collection[str] | None = None,
) -> Report:
    """Returns every metric as a plain float, with what a reader needs to judge it.

    Args:
      moments: one state, or a stack of partial states with leading axis P (devices or blocks of
        data); a stack is merged, and if P >= 2 gives ``vci_interval``. The blocks should be
        random or interleaved parts of the data, not different classes.
      weighting: ``"sample"`` or ``"class"``, see ``factorize``.
      head: kernel [D K] and bias [K] of the classifier; adds ``self_duality``.
      confidence: level of the interval.
      only: names of the metrics wanted, ``spectrum`` and ``vci_interval`` among them; what none of
        them needs is not computed. The four of the paper take a sixth of the time of all at
        D = 2048 (``vci_jax.solves``). By default all.

    Returns:
      A ``Report``, a dictionary of the metrics of ``collapse_metrics`` and
        ``transferability_metrics``, and
        ``spectrum``: {"between": [...], "total": [...]}, eigenvalues, descending;
        ``vci_interval``: [low, high] around ``vci_adjusted``, only for a stack of states;
        ``samples``, ``classes``, ``dim``, ``kept_rank`` (of Sigma_T), ``between_rank``;
        ``label_out_of_range``, ``non_finite``: rows refused;
        ``weighting``; ``caveats``: dictionaries with ``code``, ``metrics`` and ``message`` for
        each undefined or doubtful value, see ``vci_jax.caveats``; ``warnings``: their messages.
      Undefined values are NaN.

    Raises:
      VCIError: for what are no moments, moments of no data, counts that overflowed, an unknown
        weighting, unknown names in ``only``, or a head of another shape, of complex numbers or with
        NaN or infinity.
      RuntimeError: on a TPU, if JAX_PLATFORMS leaves the CPU out.

    Example:
      >>> import numpy as np, vci_jax
      >>> moments = vci_jax.init(num_classes=2, dim=1)
      >>> features, labels = [[0.0], [1.0], [5.0], [7.0]], np.array([0, 0, 1, 1])
      >>> moments = vci_jax.jit_update(moments, features, labels)
      >>> round(vci_jax.report(moments).vci, 4)
      0.0763
    """
    return finish(moments, weighting=weighting, head=head, confidence=confidence, only=only)


def finish(
    moments: ClassMoments,
    *,
    weighting: Weighting = "sample",
    head: Head | None = None,
    confidence: float = 0.95,
    only: Collection[str] | None = None,
    estimates: Sequence[str] = ("vci_adjusted",),
) -> Report:
    """``report``, whose jackknife has these estimates; see ``interval.ESTIMATES``."""
    if not isinstance(moments, ClassMoments):
        raise VCIError(
            f"report takes moments, got {type(moments).__name__}: for arrays call "
            "vci_jax.measure_arrays(features, labels)."
        )
    progress.advance("computing the metrics of", 0, 0)
    stack = to_host(moments)
    if stack.count.ndim == 1:
        stack = jax.tree.map(lambda leaf: leaf[None], stack)
    _check(stack)
    states = stack.count.shape[0]
    check_options(weighting, only, states, confidence)
    # In one order, so that there is one program for all of them.
    wanted = None if only is None else tuple(sorted(set(only) - {"vci_interval"}))
    data_eps = float(np.finfo(np.asarray(moments.mean).dtype).eps)
    with jax.enable_x64(True), jax.default_device(linalg.host()):
        parts: Any = None
        if head is not None:
            parts = tuple(
                map(linalg.widen, check_head(head, stack.mean.shape[-1], stack.mean.shape[-2]))
            )
        blocks = states > 1 and (only is None or "vci_interval" in only)
        estimates = tuple(estimates) if blocks else ()
        options: Options = {"weighting": weighting, "data_eps": data_eps}
        values = None
        if wanted is not None and set(wanted) <= set(_PAPER) and not blocks:
            values = _finish_by_solves(stack, wanted, data_eps, weighting)
        if values is None:
            values = jax.device_get(_finish(stack, parts, wanted, estimates, **options))
        result = _plain(values, stack, weighting)
        jackknife = None
        if blocks:
            jackknife = leave_one_out(stack, estimates, known=values["of_all"], **options)
            result["vci_interval"] = list(interval_of(jackknife, confidence))
    notes = caveats.find(result, values, data_eps)
    result["caveats"] = [caveat.to_dict() for caveat in notes]
    result["warnings"] = messages(notes)
    return Report(result, jackknife)


def check_options(
    weighting: str, only: Collection[str] | None, states: int, confidence: float = 0.95
) -> None:
    """Refuses what ``report`` would, as far as can be known before there are moments.

    Raises:
      VCIError: for an unknown weighting, ``only`` that is no collection of names, an interval
        of fewer than two states, or a confidence outside (0, 1).
    """
    if weighting not in ("sample", "class"):
        raise VCIError(f'weighting must be "sample" or "class", got {weighting!r}.')
    if not 0 < confidence < 1:
        raise VCIError(f"confidence must lie between 0 and 1, got {confidence}.")
    if isinstance(only, str):
        raise VCIError(
            f"Metrics are given as a collection of names, got {only!r}: write [{only!r}]."
        )
    if only is not None and "vci_interval" in only and states < 2:
        raise VCIError(
            "vci_interval needs at least two partial states: measure with blocks=10, or stack them."
        )


def _finish_by_solves(
    stack: ClassMoments, wanted: tuple[str, ...], data_eps: float, weighting: Weighting
) -> dict[str, Any] | None:
    """``_finish`` without eigenvectors, or None where they are needed, or digits may be."""
    if np.count_nonzero(np.any(stack.count, axis=0)) - 1 > stack.mean.shape[-1]:
        return None  # Means of so many classes cannot be independent.
    values = jax.device_get(_solved(stack, wanted, weighting=weighting, data_eps=data_eps))
    enough = caveats.PROMISED[data_eps > 1e-12] / 10
    sure = all(error <= enough for error in values["errors"].values())
    return values if values["complete"] and sure else None


@quick_jit(static_argnames=("wanted", "estimates", "weighting", "data_eps"))
def _finish(
    stack: ClassMoments,
    head: Any,
    wanted: tuple[str, ...] | None,
    estimates: tuple[str, ...],
    *,
    weighting: Weighting,
    data_eps: float,
) -> dict[str, Any]:
    geometry = _geometry(stack, weighting, data_eps)
    between, total = metrics.spectrum(geometry)
    values: dict[str, Any] = metrics.geometry_metrics(geometry, head)
    scores, score_errors = transferability.scores_and_errors(geometry)
    values |= scores
    values["spectrum"] = {"between": between, "total": total}
    wanted = tuple(values) if wanted is None else wanted
    if unknown := set(wanted) - set(values):
        needs = [f"{n} needs {METRICS[n].needs[0]}" for n in sorted(unknown) if n in METRICS]
        there = "; ".join([f"there are {', '.join(values)}", *needs])
        raise VCIError(f"There is no metric {sorted(unknown)}; {there}.")
    errors = precision.relative_errors(geometry) | score_errors
    errors |= precision.of_distances(geometry, values["cdnv"], values["cdnv_adjusted"])
    return {
        # Under jit what is not returned is not computed.
        "metrics": {name: values[name] for name in wanted},
        "errors": {name: error for name, error in errors.items() if name in wanted},
        **facts.of_geometry(geometry, data_eps),
        "kept_rank": geometry.canonical.rank,
        "spanned": metrics.spanned(geometry),
        "canonical_rank": jnp.sum(geometry.canonical.kept),
        "between_rank": metrics.between_rank(geometry),
        **({"of_all": of_all(geometry, estimates, data_eps)} if estimates else {}),
    }


@quick_jit(static_argnames=("wanted", "weighting", "data_eps"))
def _solved(
    stack: ClassMoments, wanted: tuple[str, ...], *, weighting: Weighting, data_eps: float
) -> dict[str, Any]:
    """``_finish`` for the metrics of the paper, and whether it is ``complete``."""
    geometry = _geometry(stack, weighting, data_eps)
    traces = solves.by_name(geometry)
    values = {name: trace.value for name, trace in traces.items()}
    values["squared_distance"] = metrics.squared_distance(geometry)
    values["cosine_similarity"] = metrics.cosine_similarity(geometry)
    errors = precision.relative_errors(geometry) | {n: t.error for n, t in traces.items()}
    rank = jnp.sum(geometry.present) - 1
    return {
        "metrics": {name: values[name] for name in wanted},
        "errors": {name: errors[name] for name in wanted},
        **facts.of_geometry(geometry, data_eps),
        "kept_rank": solves.total_rank(geometry),
        "spanned": rank == geometry.offsets.shape[1],
        "canonical_rank": rank,
        "between_rank": rank,
        "complete": traces["vci"].complete & traces["fuzziness"].complete,
    }


def _geometry(stack: ClassMoments, weighting: Weighting, data_eps: float) -> Geometry:
    """The geometry of all states in float64."""
    stack = linalg.widen(stack)  # inside the program, that no copy is made
    alone = stack.count.shape[0] == 1
    moments = jax.tree.map(lambda leaf: leaf[0], stack) if alone else merge_axis(stack)
    return factorize(moments, weighting=weighting, data_eps=data_eps)


def _plain(values: dict[str, Any], stack: ClassMoments, weighting: Weighting) -> dict[str, Any]:
    count = stack.count.astype(np.int64).sum(axis=0)
    return {
        **jax.tree.map(lambda value: value.tolist(), values["metrics"]),
        "samples": int(count.sum()),
        "classes": int((count > 0).sum()),
        "dim": int(stack.mean.shape[-1]),
        "kept_rank": int(values["kept_rank"]),
        "between_rank": int(values["between_rank"]),
        "label_out_of_range": int(stack.label_out_of_range.sum()),
        "non_finite": int(stack.non_finite.sum()),
        "weighting": weighting,
    }


def _check(stack: ClassMoments) -> None:
    if np.any(stack.count < 0) or np.any(stack.count.astype(np.int64).sum(axis=0) >= MAX_COUNT):
        raise VCIError(
            "2^31 - 1 samples or more in one class: the int32 counts overflowed, and no metric "
            "is known. Report on parts of the data."
        )
    if not np.any(stack.count):
        refused = int(stack.label_out_of_range.sum() + stack.non_finite.sum())
        raise VCIError(
            f"The moments hold no samples ({refused:,} rows were refused for their label or for "
            "NaN): call update first."
        )
