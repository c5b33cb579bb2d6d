"""What an optimised program says of itself: its transfers between chips, and from main memory.

The compiler's own count, "bytes accessed", adds up what every operation touches, wherever it lies.
On a TPU much of that never reaches main memory: the compiler keeps what fits in a chip's vector
memory, and says so in the layout of each array (``S(1)``). Here an operation costs the arrays in
main memory that it reads, each once, and writes, with the padding of their tiles. Of what an
operation only slices, it costs the slices; the rest of such an array stays where it is.

Both are counts of a text: neither knows of an array that a convolution reads once per tile of its
output. So the count from the text is a lower bound, as a roofline asks for.
"""

import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "c64": 64, "c128": 128}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^{}]*))?\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SOURCE = re.compile(r'op_name="([^"]*)"')
# Three ways to write groups of two chips: {{0,1},{2,3}}, [2,2]<=[4], and by the axes of a mesh,
# mesh['a'=2,'b'=2] {'b'}; part of an axis is 'a':(1)2.
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_BY_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_AXIS = re.compile(r"'(\w+)'=(\d+)")
_USED = re.compile(r"'(\w+)'(?::\(\d+\)(\d+))?")
_COLLECTIVES = re.compile(
    r"^(all-reduce|all-gather|(?:ragged-)?all-to-all|collective-permute|collective-broadcast"
    r"|reduce-scatter|send|recv)(?:-start)?$"
)
# They name or bundle arrays, or end what another began; none moves anything.
_FREE = re.compile(
    r"^(parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|replica-id"
    r"|opt-barrier|iota|.*-done)$"
)


class Buffer(NamedTuple):
    """An array: its size with padding, and whether it lies in main memory."""

    bytes: int
    is_far: bool


class Instruction(NamedTuple):
    """One operation.

    Attributes:
      name: in its computation.
      op: what it does.
      results: the arrays it writes.
      operands: names of what it reads, by position.
      called: the computations inside it.
      trips: how often it runs them.
      group: how many chips take part, if it is a collective among groups of them; otherwise 0.
      source: what it was in JAX; of a parameter its number.
    """

    name: str
    op: str
    results: tuple[Buffer, ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    trips: int
    group: int
    source: str


class Program(NamedTuple):
    """The computations of an optimised program, each in the order of its instructions."""

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def run(self, name: str | None = None, times: int = 1) -> Iterator[tuple[str, int]]:
        """Yields the computations that are run as a list of operations, and how often each is."""
        name = self.entry if name is None else name
        yield name, times
        for instruction in self.computations[name].values():
            if instruction.op in ("while", "call", "conditional", "async-start"):
                for called in instruction.called:
                    yield from self.run(called, times * instruction.trips)


class Talk(NamedTuple):
    """Operations between chips: how many, and the bytes that each chip brings to them."""

    count: int  # type: ignore[assignment]  # shadows tuple.count, on purpose
    bytes: int


class Move(NamedTuple):
    """An operation that reads or writes main memory, and how many bytes over the whole program."""

    bytes: int
    instruction: Instruction


def parse(text: str) -> Program:
    """Returns the program that ``compiled.as_text()`` describes.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, {}
    for line in text.splitlines():
        if not line.startswith(" "):
            if found := _COMPUTATION.match(line):
                current = computations[found[2]] = {}
                entry = found[2] if found[1] else entry
        elif found := _INSTRUCTION.match(line):
            current[found[2]] = _instruction(found)
    if entry is None:
        raise ValueError("this text is no compiled program: it has no line that begins with ENTRY.")
    return Program(computations, entry)


def collectives(program: Program) -> dict[str, Talk]:
    """Returns what moves between chips, by kind and number of chips, as in ``all-reduce/8``.

    An operation in a loop counts once; the number is left out where the text has none.
    """
    found: dict[str, Talk] = {}
    for computation in program.computations.values():
        for it in computation.values():
            if match := _COLLECTIVES.match(it.op):
                key = f"{match[1]}/{it.group}" if it.group else match[1]
                arrays = (computation[name] for name in it.operands if name in computation)
                size = sum(_size(array.results) for array in arrays)
                count, total = found.get(key, Talk(0, 0))
                found[key] = Talk(count + 1, total + size)
    return found


def moves(program: Program) -> list[Move]:
    """Returns what moves bytes from and to main memory, the most first."""
    found = []
    for name, times in program.run():
        computation = program.computations[name]
        for instruction in computation.values():
            if size := times * _bytes(program, computation, instruction):
                found.append(Move(size, instruction))
    return sorted(found, key=lambda move: -move.bytes)


def traffic(program: Program) -> int:
    """Returns the bytes that a run of the program reads from and writes to main memory."""
    return sum(move.bytes for move in moves(program))


def _bytes(program: Program, computation: dict[str, Instruction], it: Instruction) -> int:
    if _FREE.match(it.op) or it.op in ("while", "call", "conditional", "async-start"):
        return 0
    if it.op.endswith("-start") and it.op != "all-reduce-start":
        return _transferred(computation, it)
    reads = {name: _far(computation[name].results) for name in it.operands if name in computation}
    writes = _far(it.results)
    body = program.computations[it.called[0]] if it.op == "fusion" else {it.name: it}
    for index, name in enumerate(it.operands):
        inner = _parameter(body, index) if it.op == "fusion" else name
        users = [user for user in body.values() if inner in user.operands]
        if name not in reads or not reads[name] or not users:
            continue
        if all(user.op in ("slice", "dynamic-slice", "gather") for user in users):
            reads[name] = min(reads[name], sum(_size(user.results) for user in users))
        elif all(u.op == "dynamic-update-slice" and u.operands[0] == inner for u in users):
            # It is updated where it lies: what is read is not, what is written is the slice.
            update = sum(_size(body[user.operands[1]].results) for user in users)
            writes, reads[name] = max(0, writes - reads[name]) + update, 0
    return writes + sum(reads.values())


def _transferred(computation: dict[str, Instruction], it: Instruction) -> int:
    """Returns what a copy between memories costs: as much at either end as arrives."""
    if it.op == "copy-start":
        return _far(it.results[:2])
    arrives = it.results[1:2] or it.results
    source = [b for name in it.operands if name in computation for b in computation[name].results]
    ends = sum(b.is_far for b in (*source[:1], *arrives))
    return _size(arrives) * ends


def _parameter(body: dict[str, Instruction], index: int) -> str:
    parameters = [name for name, it in body.items() if it.op == "parameter"]
    numbered = {_index(body[name]): name for name in parameters}
    return numbered.get(index, "")


def _index(parameter: Instruction) -> int:
    return int(parameter.source)


def _instruction(found: re.Match[str]) -> Instruction:
    _, _, name, shape, op, rest = (found[0], *found.groups())
    inside, attributes = _split(rest)
    trips, source = _TRIPS.search(attributes), _SOURCE.search(attributes)
    return Instruction(
        name=name,
        op=op,
        results=tuple(_buffers(shape)),
        operands=tuple(_NAME.findall(inside)),
        called=tuple(_CALLED.findall(attributes)),
        trips=int(trips[1]) if trips else 1,
        group=_group(attributes),
        source=inside if op == "parameter" else source[1] if source else "",
    )


def _group(attributes: str) -> int:
    """Returns how many chips take part in a collective, or 0 if the text does not say."""
    if found := _LISTED.search(attributes):
        return found[1].count(",") + 1
    if found := _COUNTED.search(attributes):
        return int(found[1])
    if found := _BY_AXES.search(attributes):
        sizes = dict(_AXIS.findall(found[1]))
        return math.prod(int(part or sizes[axis]) for axis, part in _USED.findall(found[2]))
    return 0


def _split(rest: str) -> tuple[str, str]:
    """Returns what is inside the bracket that was open before ``rest``, and what is after it."""
    depths = itertools.accumulate((c == "(") - (c == ")") for c in rest)
    end = next((index for index, depth in enumerate(depths) if depth < 0), len(rest))
    return rest[:end], rest[end:]


def _buffers(shape: str) -> Iterator[Buffer]:
    for dtype, sides, order, memory in _SHAPE.findall(shape):
        bits = _BITS.get(dtype) or int(re.sub(r"\D*(\d+).*", r"\1", dtype) or 0)
        yield Buffer(_padded(sides, order, memory) * bits // 8, "S(" not in memory)


def _padded(sides: str, order: str, memory: str) -> int:
    """Returns the numbers that an array holds, those that fill up its tiles included."""
    lengths = [int(side) for side in sides.split(",") if side]
    tile = _TILE.search(memory)
    if tile and order:
        axes = [int(axis) for axis in order.split(",")]  # from the fastest to the slowest
        for axis, step in zip(axes, reversed(tile[1].split(",")), strict=False):
            lengths[axis] = -(-lengths[axis] // int(step)) * int(step)
    return math.prod(lengths)


def _far(buffers: tuple[Buffer, ...]) -> int:
    return sum(buffer.bytes for buffer in buffers if buffer.is_far)


def _size(buffers: tuple[Buffer, ...]) -> int:
    return sum(buffer.bytes for buffer in buffers)
