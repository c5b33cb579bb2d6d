"""How the inputs of the golden cases are built."""

Row = list[float]
Points = tuple[list[Row], list[int]]


def blobs(means: list[Row], noise: list[list[Row]]) -> Points:
    """Class means plus deviations, and labels 0, 1, ..."""
    rows = [
        [m + e for m, e in zip(mean, deviation, strict=True)]
        for mean, part in zip(means, noise, strict=True)
        for deviation in part
    ]
    return rows, [label for label, part in enumerate(noise) for _ in part]


def noise(seed: int, samples: int, dim: int) -> list[Row]:
    """Integers -4 .. 4 from a linear congruential generator, the same in any language."""
    state, rows = 12345 + 7919 * seed, []
    for _ in range(samples):
        row: Row = []
        for _ in range(dim):
            state = (1103515245 * state + 12345) % 2**31
            row.append((state >> 16) % 9 - 4)
        rows.append(row)
    return rows


def cloud(classes: int, samples: int, dim: int) -> list[list[Row]]:
    """Other noise for each class."""
    return [noise(seed, samples, dim) for seed in range(classes)]


def corners(classes: int, dim: int, size: float = 1) -> list[Row]:
    """The ends of the first axes."""
    return [[size * (d == k) for d in range(dim)] for k in range(classes)]


def twice(rows: list[Row], labels: list[int]) -> Points:
    """Each half of the rows twice, so that equal samples of a class lie N / 2 apart."""
    half = len(rows) // 2
    return rows[:half] * 2 + rows[half:] * 2, sorted(labels * 2)


def push(data: Points, first: int, second: int, vector: Row) -> Points:
    """Adds the vector to one sample and takes it from another."""
    signs = [(i == first) - (i == second) for i in range(len(data[1]))]
    rows = [
        [x + sign * v for x, v in zip(row, vector, strict=True)]
        for sign, row in zip(signs, data[0], strict=True)
    ]
    return rows, data[1]


def relabel(data: Points, names: list[int]) -> Points:
    """Class k is called names[k]."""
    return data[0], [names[label] for label in data[1]]


def insert(data: Points, constants: tuple[float, float]) -> Points:
    """A constant coordinate before all others and one behind."""
    return [[constants[0], *row, constants[1]] for row in data[0]], data[1]


def double(data: Points) -> Points:
    """The last coordinate twice."""
    return [[*row, row[-1]] for row in data[0]], data[1]
