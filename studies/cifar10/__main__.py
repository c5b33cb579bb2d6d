"""Writes the study's page, pictures and README section from the raw files.

    python -m studies.cifar10 docs/study --readme README.md            # write them, seconds
    python -m studies.cifar10 docs/study --readme README.md --check    # compare, write nothing

DIR has the raw file of each network (``networks/seed_S/NAME.json``), the rows of the pilot and the
prose; the page is ``DIR.md``. Raw files come from ``python -m train collapse_study`` and
``python -m studies.cifar10.score``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from studies.cifar10 import document, pictures


def main(arguments: Sequence[str]) -> int:
    """Writes or compares the texts and returns the exit code.

    1: ``--check`` finds a text that is out of date; 2: raw files are missing or wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m studies.cifar10",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, metavar="DIR", help="directory of raw files, pictures")
    parser.add_argument("--readme", type=Path, help="a file with a section on the study")
    parser.add_argument("--check", action="store_true", help="compare the texts, write nothing")
    options = parser.parse_args(arguments)
    try:
        study = document.read(options.study)
        texts = document.texts(study, options.study, options.readme)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check:
        differences = [document.compare(path, text) for path, text in texts.items()]
        print("\n".join(filter(None, differences)), file=sys.stderr)
        return int(any(differences))
    for path in pictures.draw(study, options.study):
        print(path)
    for path, text in texts.items():
        path.write_text(text)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
