"""The ranking as one page of HTML: scores, pairs, learning curves, mistakes, features in a plane.

Pictures are SVG: the page needs no script, no network and no server.
"""

import base64
import datetime
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import markupsafe
import numpy as np
from PIL import Image

from probes.page.render import TEMPLATES, asset
from probes.transfer import escape
from vci_jax import linalg
from vci_jax.probe import Pair, Ranking

_WIDTH = 640
_THUMBNAIL = 96
_COLOURS = 8


class Mistake(NamedTuple):
    """An image that the best models misclassify: its pixels, name, class, and correct models."""

    pixels: np.ndarray
    name: str
    label: str
    right: tuple[str, ...]


class Projection(NamedTuple):
    """The features of a model in two dimensions, ``[N 2]``, with the class of each sample."""

    model: str
    points: np.ndarray
    labels: np.ndarray


def render(
    ranking: Ranking,
    *,
    data: str,
    classes: Sequence[str],
    mistakes: Sequence[Mistake] = (),
    planes: Sequence[Projection] = (),
    failures: Sequence[tuple[str, str]] = (),
    command: str = "",
) -> str:
    """Returns the page.

    Args:
      ranking: the ranking.
      data: source of the images.
      classes: names of the classes.
      mistakes: images to show.
      planes: features to draw.
      failures: models without a score, and the reasons.
      command: the command that makes this page.
    """
    models = [model.model for model in ranking.models]
    names = dict(zip(models, escape.lines(models), strict=True))
    return TEMPLATES.get_template("rank.html.j2").render(
        data=escape.line(data),
        ranking=ranking,
        names=names,
        accuracies=_accuracies(ranking, names),
        pairs=[_pair(pair, names) for pair in ranking.pairs],
        learning=_learning(ranking, names),
        mistakes=[
            {
                "image": _data_uri(mistake.pixels),
                "name": escape.line(mistake.name),
                "label": escape.line(mistake.label),
                "right": [names[model] for model in mistake.right],
            }
            for mistake in mistakes
        ],
        planes=[(names[plane.model], _scatter(plane)) for plane in planes],
        classes=[escape.line(name) for name in classes[:_COLOURS]],
        more_classes=max(0, len(classes) - _COLOURS),
        failures=[(escape.line(model), escape.prose(why)) for model, why in failures],
        command=command,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        number=_number,
        style=asset("page.css"),
    )


def plane(model: str, features: np.ndarray, labels: np.ndarray, most: int = 600) -> Projection:
    """Returns the features in the plane in which the class means differ most.

    It is spanned by the first two principal axes of the class means of standardised features. At
    most ``most`` evenly spaced samples are drawn.
    """
    rows = np.linspace(0, len(labels) - 1, min(most, len(labels))).astype(int)
    features = np.asarray(features, np.float64)
    deviations = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(deviations > 0, deviations, 1)
    means = np.stack([features[labels == k].mean(axis=0) for k in np.unique(labels)])
    centred = (means - means.mean(axis=0)).astype(np.float32)
    size, eps = min(2, *centred.shape), float(np.finfo(np.float32).eps)
    points = features[rows] @ np.asarray(linalg.row_space(centred, size, eps).basis, np.float64)
    if points.shape[1] < 2:
        points = np.concatenate([points, np.zeros((len(points), 2 - points.shape[1]))], axis=1)
    return Projection(model, points, labels[rows])


def _accuracies(ranking: Ranking, names: dict[str, str]) -> markupsafe.Markup:
    """Draws accuracies with intervals, the best on top."""
    low = min(model.accuracy_interval[0] for model in ranking.models)
    high = max(model.accuracy_interval[1] for model in ranking.models)
    ticks = _ticks(100 * low, 100 * high)
    left, right, row = 28, 28, 46  # Room for half a label of the axis on either side.
    height = row * len(ranking.models) + 40

    def x(percent: float) -> float:
        share = (percent - ticks[0]) / (ticks[-1] - ticks[0])
        return left + share * (_WIDTH - left - right)

    parts = [
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 28}"/>'
        f'<text x="{x(tick):.1f}" y="{height - 10}" text-anchor="middle">{tick:g} %</text>'
        for tick in ticks
    ]
    for number, model in enumerate(ranking.models):
        y = row * number + 34
        ends = [x(100 * end) for end in model.accuracy_interval]
        kind = "best" if model.ties_with_best else "behind"
        title = markupsafe.escape(names[model.model])
        parts.append(
            f'<text class="name" x="{left}" y="{y - 14}">{title}</text>'
            f'<g class="{kind}"><line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{x(100 * model.accuracy):.1f}" cy="{y}" r="5"/></g>'
        )
    label = "Accuracy of the probe of each model, with its interval"
    return _svg(parts, _WIDTH, height, label)


def _learning(ranking: Ranking, names: dict[str, str]) -> markupsafe.Markup | None:
    """Draws accuracy by number of training samples, one line per model."""
    curves = {
        model.model: [*model.curve, (model.train_size, model.accuracy)] for model in ranking.models
    }
    if not all(len(curve) > 1 for curve in curves.values()):
        return None
    sizes = sorted({size for curve in curves.values() for size, _ in curve})
    values = [100 * value for curve in curves.values() for _, value in curve]
    ticks = _ticks(min(values), max(values))
    left, right, top, bottom, height = 52, 150, 12, 40, 320

    def x(size: float) -> float:
        span = math.log(sizes[-1] / sizes[0]) or 1
        return left + math.log(size / sizes[0]) / span * (_WIDTH - left - right)

    def y(percent: float) -> float:
        share = (percent - ticks[0]) / (ticks[-1] - ticks[0])
        return height - bottom - share * (height - top - bottom)

    parts = [
        f'<line class="grid" x1="{left}" x2="{_WIDTH - right}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{left - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g} %</text>'
        for t in ticks
    ]
    parts += [
        f'<text x="{x(size):.1f}" y="{height - 18}" text-anchor="middle">{size:,}</text>'
        for size in sizes
    ]
    parts.append(
        f'<text x="{(left + _WIDTH - right) / 2:.0f}" y="{height - 2}" text-anchor="middle">'
        "training samples</text>"
    )
    heights: list[float] = []
    for number, (model, curve) in enumerate(curves.items()):
        points = " ".join(f"{x(size):.1f},{y(100 * value):.1f}" for size, value in curve)
        label_y = y(100 * curve[-1][1]) + 4
        while any(abs(label_y - other) < 15 for other in heights):
            label_y += 15
        heights.append(label_y)
        title = names[model] if len(names[model]) < 18 else names[model][:16] + "…"
        parts.append(
            f'<g class="line" style="color: var(--c{number % _COLOURS})">'
            f'<polyline points="{points}"/>'
            + "".join(
                f'<circle cx="{x(size):.1f}" cy="{y(100 * value):.1f}" r="3.5"/>'
                for size, value in curve
            )
            + f'<text x="{_WIDTH - right + 8}" y="{label_y:.1f}">'
            + f"{markupsafe.escape(title)}</text></g>"
        )
    return _svg(parts, _WIDTH, height, "Accuracy by number of training samples")


def _scatter(plane: Projection) -> markupsafe.Markup:
    side, edge = 300, 10
    low, high = np.percentile(plane.points, [0.5, 99.5], axis=0)
    span = np.where(high > low, high - low, 1)
    positions = edge + (np.clip(plane.points, low, high) - low) / span * (side - 2 * edge)
    parts = [
        f'<circle style="color: var(--c{label % _COLOURS})" '
        f'cx="{x:.1f}" cy="{side - y:.1f}" r="2.6"/>'
        for (x, y), label in zip(positions, plane.labels.tolist(), strict=True)
    ]
    return _svg(parts, side, side, "Features in the plane in which class means differ most")


def _svg(parts: Sequence[str], width: int, height: int, label: str) -> markupsafe.Markup:
    box = f'viewBox="0 0 {width} {height}" role="img" aria-label="{label}"'
    return markupsafe.Markup(f"<svg {box}>{''.join(parts)}</svg>")


def _ticks(low: float, high: float) -> list[float]:
    """Returns four to seven round numbers around a range of percentages."""
    span = max(high - low, 1)
    step = next(s for s in (0.2, 0.5, 1, 2, 5, 10, 20, 25) if span / s <= 5 or s == 25)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def _pair(pair: Pair, names: dict[str, str]) -> dict[str, object]:
    low, high = (100 * end for end in pair.interval)
    needed = pair.samples_needed
    return {
        "better": names[pair.better],
        "worse": names[pair.worse],
        "difference": f"{100 * pair.difference:.1f}",
        "interval": f"{low:.1f} to {high:.1f}",
        "p_value": f"{pair.p_value:.3f}" if pair.p_value >= 0.001 else "< 0.001",
        "told_apart": pair.told_apart,
        "needed": f"{needed:,.0f}" if math.isfinite(needed) else "no number",
    }


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _data_uri(pixels: np.ndarray) -> str:
    image = Image.fromarray(np.squeeze(pixels))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
