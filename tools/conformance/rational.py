"""The little linear algebra that ``exact`` needs, over the rational numbers."""

import decimal
from fractions import Fraction
from typing import TypeVar

Vector = list[Fraction]
Matrix = list[list[Fraction]]
Number = TypeVar("Number", Fraction, decimal.Decimal)


def dot(left: Vector, right: Vector) -> Fraction:
    """Inner product."""
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


def square(vector: list[Number]) -> Number:
    """Squared length."""
    total = vector[0] * vector[0]
    for x in vector[1:]:
        total += x * x
    return total


def minus(left: Vector, right: Vector) -> Vector:
    """Difference of two vectors."""
    return [a - b for a, b in zip(left, right, strict=True)]


def zeros(size: int) -> Matrix:
    """A square matrix of zeros."""
    return [[Fraction(0)] * size for _ in range(size)]


def identity(size: int) -> Matrix:
    """The identity."""
    return [[Fraction(int(i == j)) for j in range(size)] for i in range(size)]


def plus(left: Matrix, right: Matrix, factor: Fraction) -> Matrix:
    """The sum left + factor right."""
    return [
        [a + factor * b for a, b in zip(x, y, strict=True)]
        for x, y in zip(left, right, strict=True)
    ]


def product(left: Matrix, right: Matrix) -> Matrix:
    """Matrix product."""
    columns = [list(column) for column in zip(*right, strict=True)]
    return [[dot(row, column) for column in columns] for row in left]


def outer(rows: Matrix) -> Matrix:
    """R R^T."""
    return [[dot(a, b) for b in rows] for a in rows]


def gram(rows: Matrix) -> Matrix:
    """R^T R."""
    return outer([list(column) for column in zip(*rows, strict=True)])


def sandwich(rows: Matrix, matrix: Matrix) -> Matrix:
    """R A R^T for a symmetric A."""
    return [[dot(row, other) for other in product(rows, matrix)] for row in rows]


def trace(matrix: Matrix) -> Fraction:
    """Sum of the diagonal."""
    return sum((row[i] for i, row in enumerate(matrix)), Fraction(0))


def diagonal(matrix: Matrix) -> bool:
    """Whether nothing lies off the diagonal."""
    return not any(x for i, row in enumerate(matrix) for j, x in enumerate(row) if i != j)


def independent(matrix: Matrix) -> list[int]:
    """The first largest set of independent rows of a positive semi-definite matrix."""
    chosen: list[int] = []
    reduced: list[Vector] = []
    pivots: list[int] = []
    for index, row in enumerate(matrix):
        rest = list(row)
        for basis, pivot in zip(reduced, pivots, strict=True):
            factor = rest[pivot] / basis[pivot]
            rest = [x - factor * b for x, b in zip(rest, basis, strict=True)]
        if any(rest):
            chosen.append(index)
            reduced.append(rest)
            pivots.append(next(j for j, x in enumerate(rest) if x))
    return chosen


def solve(left: Matrix, right: Matrix) -> Matrix:
    """left^-1 right by Gauss-Jordan elimination; left is positive definite, so pivots exist."""
    size = len(left)
    work = [[*a, *b] for a, b in zip(left, right, strict=True)]
    for i in range(size):
        work[i] = [x / work[i][i] for x in work[i]]
        for j in range(size):
            if j != i and work[j][i]:
                factor = work[j][i]
                work[j] = [x - factor * y for x, y in zip(work[j], work[i], strict=True)]
    return [row[size:] for row in work]
