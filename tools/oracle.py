"""Holds every number of ``vci_jax`` to exact arithmetic on random, mostly nasty, cases.

    python -m tools.oracle --cases 20000 --workers 2
    python -m tools.oracle --case 1234            # one case in full

Each value gets one of four verdicts. *ok*: within 1e-8 (float64 moments) or 1e-3 (float32) of the
truth, see ``oracle_verdict``. *NaN*: no number. *caveat*: wrong, and a caveat of the report names
the metric. *silent*: wrong, and nothing says so; that is an error, and the exit code is 1.
Caveats beside values that were right are counted too: a caveat everywhere would be of no use.

Kinds of cases are those of ``oracle_cases.KINDS``, with *integer rows*, *float16 rows* and
*narrowed* (float64 rows given to float32 moments). Development only: needs python-flint.
"""

import argparse
import collections
import math
import multiprocessing
import time
import warnings
from collections.abc import Iterator, Sequence

from tools.oracle_cases import KINDS, describe, draw
from tools.oracle_verdict import CAVEAT, NAN, OK, SILENT, VERDICTS, Finding, Outcome, judge

_SHOWN = 3  # examples of each metric


class Tally:
    """Counts of verdicts by metric, dtype and kind, and the first silent errors of each metric."""

    def __init__(self) -> None:
        self.verdicts: collections.Counter[tuple[str, str, str, str]] = collections.Counter()
        self.needless: collections.Counter[tuple[str, str]] = collections.Counter()
        self.easy: collections.Counter[tuple[str, str]] = collections.Counter()
        self.easy_faults: dict[tuple[str, str], list[int]] = {}
        self.examples: dict[tuple[str, str], list[tuple[Finding, int, tuple[str, ...]]]] = {}
        self.broken: dict[str, list[int]] = {}
        self.cases = 0

    def add(self, outcome: Outcome) -> None:
        """Counts one case."""
        case = outcome.case
        self.cases += 1
        for law in outcome.broken:
            self.broken.setdefault(law, []).append(case.seed)
        worst = OK
        for finding in outcome.findings:
            for kind in (*case.kinds, "all"):
                self.verdicts[finding.metric, case.state, kind, finding.verdict] += 1
            if finding.verdict == SILENT:
                shown = self.examples.setdefault((finding.metric, case.state), [])
                shown.append((finding, case.seed, case.kinds))
                shown.sort(key=lambda example: (len(example[2]), example[1]))
                del shown[_SHOWN:]
            # Where there is no value, a caveat says why.
            verdict = finding.verdict
            if verdict == OK and finding.doubted and not math.isnan(finding.expected):
                self.needless[finding.metric, case.state] += 1
                verdict = CAVEAT
            worst = max(worst, verdict, key=VERDICTS.index)
            if outcome.easy and verdict != OK:
                self.easy_faults.setdefault((finding.metric, verdict), []).append(case.seed)
        if outcome.easy:
            self.easy[case.state, worst] += 1

    def merge(self, other: "Tally") -> None:
        """Adds what another worker counted."""
        self.verdicts += other.verdicts
        self.needless += other.needless
        self.easy += other.easy
        self.cases += other.cases
        for key, shown in other.examples.items():
            both = self.examples.get(key, []) + shown
            self.examples[key] = sorted(both, key=lambda e: (len(e[2]), e[1]))[:_SHOWN]
        for fault, seeds in other.easy_faults.items():
            self.easy_faults.setdefault(fault, []).extend(seeds)
        for law, seeds in other.broken.items():
            self.broken.setdefault(law, []).extend(seeds)

    @property
    def silent(self) -> int:
        """How many values were silently wrong."""
        return sum(n for key, n in self.verdicts.items() if key[2:] == ("all", SILENT))


def run(seeds: Sequence[int], stop_at_first: bool = False, seconds: float | None = None) -> Tally:
    """Judges the cases of these seeds, as many as the time allows."""
    tally, start = Tally(), time.monotonic()
    for seed in seeds:
        tally.add(judge(draw(seed)))
        spent = seconds is not None and time.monotonic() - start > seconds
        if spent or (stop_at_first and (tally.silent or tally.broken)):
            break
    return tally


def by_metric(tally: Tally) -> Iterator[str]:
    """Verdicts by metric and dtype, and how often a caveat stood beside a right value."""
    head = "".join(f"{verdict:>8}" for verdict in (*VERDICTS, "needless"))
    yield f"{'metric':<44}{'float64':^42}{'float32':^42}"
    yield f"{'':<44}{head:>42}{head:>42}"
    for metric in dict.fromkeys(key[0] for key in tally.verdicts):
        cells = ""
        for state in ("float64", "float32"):
            counts = [tally.verdicts[metric, state, "all", verdict] for verdict in VERDICTS]
            counts.append(tally.needless[metric, state])
            cells += f"{''.join(f'{count or chr(183):>8}' for count in counts):>42}"
        yield f"{metric:<44}{cells}"


def by_kind(tally: Tally) -> Iterator[str]:
    """Verdicts by kind of case and dtype, over all metrics."""
    head = "".join(f"{verdict:>8}" for verdict in VERDICTS)
    yield f"{'kind':<24}{'float64':^36}{'float32':^36}"
    yield f"{'':<24}{head:>36}{head:>36}"
    totals: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for (_, state, kind, verdict), count in tally.verdicts.items():
        totals[kind, state, verdict] += count
    for kind in dict.fromkeys(key[0] for key in totals):
        cells = ""
        for state in ("float64", "float32"):
            counts = [totals[kind, state, verdict] for verdict in VERDICTS]
            cells += f"{''.join(f'{count or chr(183):>8}' for count in counts):>36}"
        yield f"{kind:<24}{cells}"


def silent_cells(tally: Tally) -> Iterator[str]:
    """Which metrics were silently wrong on which kinds: metric, dtype, kind counts."""
    cells: dict[tuple[str, str], dict[str, int]] = {}
    for (metric, state, kind, verdict), count in tally.verdicts.items():
        if verdict == SILENT and kind != "all":
            cells.setdefault((metric, state), {})[kind] = count
    for (metric, state), kinds in sorted(cells.items()):
        most = sorted(kinds.items(), key=lambda pair: -pair[1])
        yield f"{metric:<44}{state}  " + ", ".join(f"{kind} {count}" for kind, count in most)


def examples(tally: Tally) -> Iterator[str]:
    """The simplest silent errors of each metric, each with the command that shows it."""
    for (metric, state), shown in sorted(tally.examples.items()):
        for finding, seed, kinds in shown:
            yield (
                f"{metric} ({state}): expected {finding.expected:.10g}, got {finding.got:.10g}; "
                f"{', '.join(kinds)}: python -m tools.oracle --case {seed}"
            )


def summary(tally: Tally) -> Iterator[str]:
    """The share of easy cases that were right without a word, invariants, and the total."""
    for state in ("float64", "float32"):
        counts = {verdict: tally.easy[state, verdict] for verdict in VERDICTS}
        size = sum(counts.values())
        if size:
            yield (
                f"{size} well-conditioned cases in {state}: {counts[OK] / size:.2%} right without "
                f"a word, {counts[CAVEAT]} with a caveat, {counts[NAN]} with a NaN, "
                f"{counts[SILENT]} with a silent error"
            )
    for (metric, verdict), seeds in sorted(tally.easy_faults.items()):
        first = " ".join(map(str, seeds[:4]))
        yield f"  of these {len(seeds)} {verdict}: {metric} (--case {first})"
    for law, seeds in tally.broken.items():
        yield f"broken {len(seeds)} times: {law} (--case {' '.join(map(str, seeds[:3]))})"
    values = sum(n for key, n in tally.verdicts.items() if key[2] == "all")
    yield f"{tally.cases:,} cases, {values:,} values, {tally.silent:,} silent errors"


def show(seed: int) -> Outcome:
    """Prints one case in full."""
    outcome = judge(draw(seed))
    print(describe(outcome.case), "easy" if outcome.easy else "")
    for finding in outcome.findings:
        doubt = "caveat" if finding.doubted else ""
        print(
            f"{finding.metric:<44}{finding.verdict:>8}{finding.expected:>26.16g}"
            f"{finding.got:>26.16g}  {doubt}"
        )
    for law in outcome.broken:
        print("broken:", law)
    for caveat in outcome.caveats:
        print(f"{caveat['code']}: {caveat['message']}")
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the cases, prints the tables, and returns 1 if anything was silently wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.oracle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{kind.name}: {kind.statement}" for kind in KINDS),
    )
    parser.add_argument("--cases", type=int, default=1000, help="number of cases (1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case (0)")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--stop-at-first", action="store_true", help="stop at a silent error")
    parser.add_argument("--case", type=int, help="show the case of this seed in full, and no more")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if options.case is not None:
        outcome = show(options.case)
        return int(any(f.verdict == SILENT for f in outcome.findings) or bool(outcome.broken))
    seeds = range(options.seed, options.seed + options.cases)
    shares = [
        (seeds[i :: options.workers], options.stop_at_first, options.seconds)
        for i in range(options.workers)
    ]
    tally = Tally()
    if options.workers == 1:
        tally = run(*shares[0])
    else:
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            for part in pool.starmap(run, shares):
                tally.merge(part)
    for section in (by_metric, by_kind, silent_cells, examples, summary):
        print("\n".join(section(tally)), end="\n\n")
    return int(tally.silent > 0 or bool(tally.broken))


if __name__ == "__main__":
    raise SystemExit(main())
