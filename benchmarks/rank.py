"""Times a ranking of five sets of features: 97 penalties each, chosen, refitted, compared.

    python -m benchmarks.rank [--shape cifar100] [--models 5] [--curve]

The features are those of ``benchmarks.probe``, rectified and correlated, each model with more noise
than the one before. Times are those of a new process, compilation included; the aim is 90 s for
10,000 x 512 features of 100 classes on 2 cores.
"""

import argparse
import time
import warnings

import numpy as np

from benchmarks.probe import SHAPES, draw
from vci_jax.probe import rank


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="cifar100", choices=SHAPES)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--curve", action="store_true", help="probes of fewer samples as well")
    options = parser.parse_args()
    features, labels = draw(*SHAPES[options.shape])
    rng = np.random.default_rng(1)
    models = {
        f"noise {level:g}": (features + level * rng.normal(size=features.shape)).astype(np.float32)
        for level in np.linspace(0, 2, options.models)
    }
    start = time.perf_counter()
    found = rank(models, labels, curve=(0.1, 0.3) if options.curve else ())
    total = time.perf_counter() - start
    print(found)
    each = ", ".join(f"{model.model} {model.seconds:.1f} s" for model in found.models)
    print(f"\n{options.models} x {SHAPES[options.shape]}: {total:.1f} s in all; {each}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
