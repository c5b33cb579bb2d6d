"""What a run costs on a TPU, from its compiler alone; no TPU and no data are needed.

``python -m tools.compile CONFIG [option ...] [--section.field value ...]``

--topology v5e:2x4   the chips (this is the default)
--step train         one of the two programs, train or metrics
--images TRAIN TEST  sizes of the splits, and
--classes K          of the labels, where the data set is not a known one
--images-per-core R  say how many cores of a host feed the train step, at R images/s each
                     (``python -m benchmarks.policies PHOTOGRAPHS`` measures R)
--moves N            list the N operations of each program that move the most bytes
--json FILE          add the result to FILE
--hlo FOLDER         leave the optimised programs there, as text

Compiles the train step and the metrics step of CONFIG (an experiment, or ``GROUP/RUN``) as a run
would, and prints operations, bytes, memory and collectives, the bound that follows from the chip's
peaks, and what all epochs cost. The exit code is 1 if a program does not fit a chip or has a
collective of an unexpected kind, 2 for a mistake in the settings. Takes minutes for a
network of ImageNet.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console

import configs
from tools.compile import check, facts, table, topology
from train import config as config_lib
from train import runtime
from train.errors import RunError

_STEPS = {"train": ["train step"], "metrics": ["metrics step"]}


def main(arguments: Sequence[str]) -> int:
    """Compiles, prints, and returns the exit code."""
    if not arguments or arguments[0].startswith("-"):
        print(f"{__doc__}\nknown configs: {', '.join(configs.names())}", file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    try:
        return _run(*_parse(arguments))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, config_lib.Config]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--step", choices=_STEPS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--hlo", type=Path)
    parser.add_argument("--moves", type=int, default=0)
    parser.add_argument("--images", type=int, nargs=2)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--images-per-core", type=float)
    options, overrides = parser.parse_known_args(arguments)
    options.overrides = overrides
    group, _, run = options.name.partition("/")
    if run and run not in configs.runs(group):
        raise config_lib.ConfigError(f"{group} has the runs {', '.join(configs.runs(group))}.")
    config = configs.runs(group)[run] if run else configs.get(group)
    return options, config_lib.override(config, options.overrides, "python -m tools.compile {}")


def _run(options: argparse.Namespace, config: config_lib.Config) -> int:
    runtime.quiet()
    # A stored program would say nothing of how long it takes, and is of no use to a TPU.
    jax.config.update("jax_enable_compilation_cache", False)
    console = Console(width=None if sys.stdout.isatty() else 200)
    chip, _ = topology.find(options.topology)
    report = check.check(
        config,
        options.topology,
        facts.find(config.data, options.images, options.classes),
        overrides=options.overrides,
        chosen=_STEPS[options.step] if options.step else ["train step", "metrics step"],
        folder=options.hlo,
        tell=lambda what: print(what, file=sys.stderr, flush=True),
    )
    table.show(report, chip, console, options.moves)
    if options.images_per_core:
        for line in table.demand(report, chip, options.images_per_core):
            console.print(line, highlight=False)
    if options.json:
        table.store(report, options.json)
    found = check.problems(report, chip)
    for problem in found:
        print(f"failed: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
