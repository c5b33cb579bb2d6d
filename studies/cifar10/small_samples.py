"""What 2,000 images say of a network: every metric on random parts of its own two splits.

    python -m studies.cifar10.small_samples RUN --data-dir DIR

writes ``RUN/small_samples.jsonl``, a row for each split and draw. The images of a draw are the same
for every network of a study, so that what is common to them cancels from a comparison.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

import vci_jax
from probes import encoders
from probes.encoders.config import TransferConfig
from probes.transfer import task_features
from probes.transfer.display import Display
from probes.transfer.tasks import Task
from train import compilation, log
from vci_jax.probe.selection import Samples

SIZE, DRAWS = 2000, 20
METRICS = (
    "fuzziness",
    "squared_distance",
    "cosine_similarity",
    "vci",
    "vci_adjusted",
    "class_separation",
    "cdnv",
    "effective_rank",
    "logme",
)
FILE = "small_samples.jsonl"


def main(arguments: list[str]) -> int:
    """Measures a run that has no such rows yet, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", default="")
    parsed = parser.parse_args(arguments)
    if (parsed.run / FILE).exists():
        return 0
    log.quiet()
    compilation.cache()
    options = TransferConfig(data_dir=parsed.data_dir, threads=1)
    with Display(Console()) as display:
        encoder = encoders.load(str(parsed.run), options)
        task = Task("own", encoder.trained_on)
        material = task_features.make(
            encoder,
            task,
            task_features.plan(encoder, task),
            options,
            root=parsed.run / "features",
            say=display.say,
            progress=display.images,
        )
    rows = [
        {"split": split, "draw": number, "samples": SIZE, "step": encoder.step, **values}
        for split, samples in material.splits.items()
        for number, values in enumerate(measure(samples, material.num_classes))
    ]
    log.replace_file(parsed.run / FILE, "".join(json.dumps(row) + "\n" for row in rows))
    return 0


def measure(samples: Samples, num_classes: int) -> list[dict[str, float | None]]:
    """Returns the metrics of each draw of ``SIZE`` images, without replacement; None if undefined.

    Raises:
      ValueError: there are fewer images than that.
    """
    if len(samples.labels) < SIZE:
        raise ValueError(f"{len(samples.labels)} images are too few to draw {SIZE} from.")
    empty = vci_jax.init(num_classes, samples.features.shape[1])
    found = []
    for draw in range(DRAWS):
        rows = np.sort(np.random.default_rng(draw).permutation(len(samples.labels))[:SIZE])
        batch = samples.features[rows], samples.labels[rows]
        moments = vci_jax.jit_update(empty, *batch, donate=False)
        values = vci_jax.report(moments, only=METRICS)
        found.append({name: _plain(values[name]) for name in METRICS})
    return found


def _plain(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
