"""The rows of docs/study/pilot.json: metrics of a network of the pilot, and its probes.

    python -m studies.cifar10.pilot_score RUN [RUN ...] --out docs/study/pilot.json --data-dir DIR

adds a row for each finished run of ``configs/pilot.py`` that is not in the file.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from probes import encoders
from probes.analysis import runs
from probes.encoders.config import TransferConfig
from probes.transfer import tasks
from studies.cifar10 import pilot, score
from train import runtime
from vci_jax.written import replace_text


def main(arguments: list[str]) -> int:
    """Adds the rows of runs that are not in the file yet, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="+", help="work directories of finished runs")
    parser.add_argument("--out", type=Path, required=True, help="file of the rows")
    parser.add_argument("--data-dir", default="", help="where CIFAR is, prepared by TFDS")
    parsed = parser.parse_args(arguments)
    runtime.quiet()
    rows = json.loads(parsed.out.read_text())
    scored = {(row["regime"], row["setting"], row["seed"]) for row in rows}
    for path in parsed.run:
        run = runs.read_run(path)
        if (*run.name.split("_", 1), run.config["seed"]) not in scored:
            rows.append(measure(path, parsed.data_dir)._asdict())
            text = ",\n".join(json.dumps(row) for row in rows)
            replace_text(parsed.out, f"[\n{text}\n]\n")
            print(rows[-1], flush=True)
    return 0


def measure(path: Path, data_dir: str) -> pilot.Row:
    """Returns the row of a finished run, with the probes of its tasks."""
    run = runs.read_run(path)
    options = TransferConfig(data_dir=data_dir, threads=1)
    encoder = encoders.load(str(path), options)
    own = run.config["data"]["source"].split(":")[1]
    accuracies = {}
    for task in tasks.choose("small", pilot.TASKS, {}, Path(data_dir)):
        if task.name == own:
            continue
        train, test, num_classes = score.task_samples(encoder, task, options)
        # Penalties below 1e-2 take nine tenths of the time, and were never chosen.
        values = score.VALUES[score.VALUES >= 1e-2]
        right = score.answers(train, test, num_classes, values)
        accuracies[task.name] = {"accuracy": float(np.mean(right)), "images": len(right)}
    names = ("accuracy", "vci", "cosine_similarity", "samples")
    splits = {split: run.last(split) for split in ("train", "test")}
    regime, setting = run.name.split("_", 1)
    return pilot.Row(
        regime=regime,
        setting=setting,
        seed=run.config["seed"],
        minutes=score.training_seconds(run) / 60,
        tasks=accuracies,
        **{split: {name: row[name] for name in names} for split, row in splits.items()},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
