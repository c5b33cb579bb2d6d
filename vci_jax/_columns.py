"""Tables with a row for each sample: CSV and Parquet, read as features and labels.

The label is one column, the features are the others. Known instance: ``pandas.read_csv``, which is
not needed here.

Legend: N rows, D columns of features.
"""

import csv as csv_reader
import fnmatch
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from vci_jax import progress
from vci_jax.errors import VCIError, optional

# Names of columns and arrays, in small letters; the first is preferred to all others.
FEATURES = ("features", "feats", "embeddings", "embedding", "feature", "representations", "x")
LABELS = ("labels", "label", "targets", "target", "classes", "class", "y")
_COUNTERS = ("id", "idx", "index", "row")


class Columns(NamedTuple):
    """The columns of a table to read, by index."""

    features: list[int]
    label: int


def csv(path: Path, features: str | None, labels: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Reads a table of text with columns separated by commas, semicolons, tabs or spaces.

    A first row that is not all numbers (its last cell aside) names the columns; else they are
    called 0, 1, 2 and so on. ``features`` and ``labels`` are as for ``choose``.

    Raises:
      VCIError: for unknown names, cells that are not numbers, or rows of another length.
    """
    delimiter, first, second = _start(path)
    named = not all(map(_is_number, first[:-1] or first))
    names = first if named else [str(place) for place in range(len(first))]
    example = second if named else first
    if len(example) != len(names):
        raise VCIError(
            f"{path} has {len(names)} columns in its first row and {len(example)} in the next: "
            "each row must have as many as the header."
        )
    text = [bool(cell.strip()) and not _is_number(cell) for cell in example]
    if comma := next((cell for cell in example if re.fullmatch(r"\s*-?\d+,\d+\s*", cell)), None):
        raise VCIError(
            f"{path} has numbers with a decimal comma, {comma}: write them with a point."
        )
    columns = choose(path, names, text, features, labels)
    codes: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig") as file:
            cells = np.loadtxt(
                _lines(file, path, delimiter, len(names)),
                delimiter=delimiter,
                skiprows=int(named),
                usecols=[*columns.features, columns.label],
                converters={columns.label: lambda cell: codes.setdefault(cell.strip(), len(codes))},
                comments=None,
                quotechar='"',
                ndmin=2,
            )
    except VCIError:
        raise
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except ValueError as error:
        reason = str(error).partition(";")[0].rstrip(".")
        raise VCIError(
            f"{path}: {reason}, counted from 0 below the header. All columns but the label must "
            "hold numbers, in every row; --features and --labels choose columns."
        ) from None
    if "" in codes:
        row = int(np.argmax(cells[:, -1] == codes[""]))
        raise VCIError(f"{path} has no label in row {row}: give rows without a class the label -1.")
    return cells[:, :-1], _labels(list(codes))[cells[:, -1].astype(int)]


def _start(path: Path) -> tuple[str | None, list[str], list[str]]:
    """Returns the delimiter, None for spaces, and the cells of the first two lines."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = file.readline(), file.readline()
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    if not lines[0].strip():
        raise VCIError(f"{path} begins with an empty line: the first must be its header or a row.")
    sign = max(",;\t", key=lines[0].count)
    spaces = sign not in lines[0] and " " in lines[0].strip()
    delimiter = None if spaces else sign
    return delimiter, _cells(lines[0], delimiter), _cells(lines[1], delimiter)


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return next(csv_reader.reader([line], delimiter=delimiter), [])


def _not_utf8(path: Path, error: UnicodeDecodeError) -> VCIError:
    return VCIError(
        f"{path} is not a readable csv file: byte {error.object[error.start]:#04x} is not UTF-8. "
        "Save it as text in UTF-8."
    )


def _lines(file: TextIO, path: Path, delimiter: str | None, columns: int) -> Iterator[str]:
    """Yields the lines of a table, checks their length, and shows progress.

    NumPy refuses shorter lines, but would read the first cells of longer ones.
    """
    size, done = path.stat().st_size, 0
    for number, line in enumerate(file):
        plain = delimiter is not None and '"' not in line
        count = line.count(delimiter or " ") + 1 if plain else len(_cells(line, delimiter))
        if count > columns and line.count('"') % 2 == 0:
            raise VCIError(
                f"{path} has {count} columns in line {number + 1} and {columns} in its first: each "
                "row must have as many as the header."
            )
        done += len(line)
        progress.advance("reading", done, size)
        yield line


def _labels(names: list[str]) -> np.ndarray:
    """Returns the distinct labels as integers if all are, else as numbers, else as text."""
    for kind in (np.int64, np.float64):
        try:
            return np.array(names).astype(kind)
        except (ValueError, OverflowError):
            continue
    return np.array(names)


def _is_index(name: str) -> bool:
    """Whether a column is a row index as pandas writes it."""
    return not name or name.startswith(("Unnamed: ", "__index_level_"))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def parquet(path: Path, features: str | None, labels: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Reads a table of Parquet: features in one column of lists, or in columns of numbers.

    ``features`` is the name of the column of lists, or as for ``choose``.

    Raises:
      VCIError: for unknown names, columns of text among the features, or lists of
        unequal length.
      MissingPackageError: without PyArrow.
    """
    library = optional("pyarrow.parquet", f"Reading {path}")
    types = optional("pyarrow.types", f"Reading {path}")
    file = library.ParquetFile(path)
    schema = file.schema_arrow
    lists = [f.name for f in schema if hasattr(f.type, "value_type") and types.is_nested(f.type)]
    if features is None and len(lists) > 1:
        raise VCIError(
            f"{path} has {len(lists)} columns of lists, {', '.join(lists[:6])}: choose one with "
            "--features."
        )
    if features is None and len(lists) == 1:
        (features,) = lists
    text = [not (_is_real(types, field.type) or field.name in lists) for field in schema]
    columns = choose(path, schema.names, text, features, labels)
    chosen = [schema.names[place] for place in columns.features]
    label = schema.names[columns.label]
    parts: list[np.ndarray] = []
    classes, groups = [], file.num_row_groups
    for group in range(groups):
        table = file.read_row_group(group, columns=[*chosen, label])
        if len(chosen) == 1 and chosen[0] in lists:
            rows = _matrix(path, chosen[0], table[chosen[0]], parts)
        else:
            rows = np.stack([table[name].to_numpy() for name in chosen], axis=1)
        column = table[label]
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        parts.append(rows)
        classes.append(column.to_numpy())
        progress.advance("reading", group + 1, groups)
    if not parts:
        return np.empty((0, len(chosen))), np.empty(0, int)
    return np.concatenate(parts), np.concatenate(classes)


def _is_real(types: Any, kind: Any) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _matrix(path: Path, name: str, column: Any, before: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the lists of a column as rows of one length."""
    lengths = optional("pyarrow.compute", f"Reading {path}").list_value_length(column).to_numpy()
    if np.any(np.isnan(lengths)):
        row = int(np.argmax(np.isnan(lengths))) + sum(map(len, before))
        raise VCIError(f"{path}: {name!r} has no list in row {row}: leave that row out.")
    first = before[0].shape[1] if before else next(iter(lengths), 0)
    if np.any(lengths != first):
        row = int(np.argmax(lengths != first))
        raise VCIError(
            f"{path}: {name!r} has lists of unequal length, {first:g} numbers in row 0 and "
            f"{lengths[row]:g} in row {row + sum(map(len, before))}; pool them to one vector a "
            "sample."
        )
    flat: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(lengths), -1)


def choose(
    path: Path,
    names: Sequence[str],
    text: Sequence[bool],
    features: str | None,
    labels: str | None,
) -> Columns:
    """Returns the indices of the label column and of the feature columns of a table.

    Args:
      path: the file, for errors.
      names: names of all columns.
      text: whether each column holds text.
      features: a name, or a pattern such as ``"f*"``; None for all columns but the label.
      labels: a name; None for the only column of a usual name (``LABELS``), or else the last.

    Raises:
      VCIError: for a name or pattern without a match, or features that are text or row numbers.
    """
    shown = ", ".join(names[:6]) + (f", ... ({len(names)} in all)" if len(names) > 6 else "")
    if labels is None:
        candidates = [place for place, name in enumerate(names) if name.lower() in LABELS]
        label = candidates[0] if len(candidates) == 1 else len(names) - 1
    elif labels in names:
        label = list(names).index(labels)
    else:
        raise VCIError(f"{path} has no column {labels!r} for --labels; it has {shown}.")
    others = [place for place, name in enumerate(names) if place != label and not _is_index(name)]
    if features is not None:
        others = [place for place in others if fnmatch.fnmatchcase(names[place], features)]
    if not others:
        raise VCIError(
            f"{path} has no column of features"
            + (f" {features!r}" if features is not None else "")
            + f" beside the label {names[label]!r}; it has {shown}. Choose with --features and "
            "--labels; a pattern such as 'f*' stands for several columns."
        )
    wrong = [p for p in others if text[p] or (features is None and names[p].lower() in _COUNTERS)]
    if wrong:
        raise VCIError(
            f"{path}: the column {names[wrong[0]]!r} does not look like a feature; the label is "
            f"{names[label]!r}. Choose the columns with --features, e.g. --features 'f*', and "
            "--labels."
        )
    return Columns(others, label)
