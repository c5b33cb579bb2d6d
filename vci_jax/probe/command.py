"""``vci probe TRAIN TEST``: how well a linear classifier of the features does on new samples."""

import argparse
import json
import math
import warnings
from collections.abc import Sequence
from typing import Any

from vci_jax import progress
from vci_jax._table import wrapped
from vci_jax.cli import add_keys
from vci_jax.files import KINDS
from vci_jax.probe import saved, selection


def parser() -> argparse.ArgumentParser:
    """Returns the parser of ``vci probe``, for shell completion as well."""
    parser = argparse.ArgumentParser(
        prog="vci probe",
        description="Accuracy of a linear classifier: L2-regularised multinomial logistic "
        "regression is fitted to the features of TRAIN with 97 penalties, the best of them is "
        "chosen on a stratified fifth that is held out, the classifier is fitted again to all of "
        "TRAIN and scored once on TEST.",
        epilog=f"Files: {KINDS}, with features [N, D] and labels [N]. "
        "`python -m probes probe` has more settings.",
    )
    for name in ("train", "test"):
        parser.add_argument(name, metavar=name.upper(), help=f"file of the {name} split")
    add_keys(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the held-out fifth (default: 0)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Parses, fits, prints.

    Raises:
      VCIError: for files that cannot be read or do not fit each other.
    """
    options = parser().parse_args(arguments)
    try:
        result = _probe(options)
    finally:
        progress.end()
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"{result['train_size']:,} + {result['test_size']:,} samples, {result['num_classes']} "
        f"classes, {result['dim']} dimensions\n\n"
        f"  accuracy  {result['accuracy']:.4f} +- {result['standard_error']:.4f}  on "
        f"{options.test} (standard error)\n"
        f"  penalty   {result['penalty']:<16.3g}  1 / C, chosen among {len(selection.VALUES)} by a "
        f"validation accuracy of {result['validation_accuracy']:.4f}"
    )
    for sentence in result["warnings"]:
        print("\n".join(wrapped(sentence)))


def _probe(options: argparse.Namespace) -> dict[str, Any]:
    splits, notes = {}, []
    for name in ("train", "test"):
        path = getattr(options, name)
        progress.begin("reading", path)
        splits[name], dropped = saved.read(path, features=options.features, labels=options.labels)
        if dropped:
            notes.append(f"{path}: {dropped:,} rows without a label are left out.")
    splits, count = saved.renumber(splits)
    progress.begin("fitting", "the classifier")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        best = selection.sweep(
            splits["train"], splits["test"], seed=options.seed, num_classes=count
        )
    notes += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    size = len(splits["test"].labels)
    # Half an image from 0 and 1, where the binomial error would be none.
    share = min(max(best.score, 0.5 / size), 1 - 0.5 / size)
    return {
        "accuracy": best.score,
        "standard_error": math.sqrt(share * (1 - share) / size),
        "penalty": float(best.value),
        "l2": float(best.l2),
        "validation_accuracy": best.validation_score,
        "train_size": len(splits["train"].labels),
        "test_size": size,
        "num_classes": count,
        "dim": splits["train"].features.shape[1],
        "converged": bool(best.fit.converged),
        "warnings": list(dict.fromkeys(notes)),
    }
