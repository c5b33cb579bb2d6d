"""What a compiled program costs a chip, and how fast it can be at best."""

from typing import Any, NamedTuple

from tools.compile import hlo
from tools.compile.topology import Chip

_MOVES = 20


class Cost(NamedTuple):
    """A compiled program, counted a chip.

    Attributes:
      program: its name.
      images: in a batch, over all chips.
      compile_seconds: that the compiler took.
      flops: as the compiler counts them.
      accessed: bytes that operations touch in any memory, as the compiler counts them.
      traffic: bytes from and to main memory; see ``hlo``.
      memory: bytes held at once: arguments, results, temporaries and code, donated arrays once.
      temporaries: those of them that live during the step alone.
      collectives: operations by kind and by how many chips take part, as ``"all-reduce/8"``.
      collective_bytes: that a chip brings to them, likewise.
      moves: the operations that move the most bytes, as pairs of what they were in JAX and bytes.
    """

    program: str
    images: int
    compile_seconds: float
    flops: float
    accessed: float
    traffic: int
    memory: int
    temporaries: int
    collectives: dict[str, int]
    collective_bytes: dict[str, int]
    moves: list[list[Any]]

    def seconds(self, chip: Chip) -> float:
        """Returns the roofline: the longer of what arithmetic and what main memory needs."""
        return max(self.flops / chip.flops, self.traffic / chip.bandwidth)

    def waits_for(self, chip: Chip) -> str:
        """Returns which of the two that is."""
        is_memory = self.traffic / chip.bandwidth > self.flops / chip.flops
        return "memory" if is_memory else "arithmetic"


def of(name: str, compiled: Any, text: str, *, images: int, seconds: float) -> Cost:
    """Returns the cost of a compiled program.

    Args:
      name: of the program.
      compiled: by ``jax``.
      text: of the optimised program.
      images: in a batch.
      seconds: that it took to compile.
    """
    memory, counted = compiled.memory_analysis(), compiled.cost_analysis()
    parsed = hlo.parse(text)
    talks = hlo.collectives(parsed)
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return Cost(
        program=name,
        images=images,
        compile_seconds=seconds,
        flops=counted["flops"],
        accessed=counted["bytes accessed"],
        traffic=hlo.traffic(parsed),
        memory=held - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        collectives={key: talk.count for key, talk in talks.items()},
        collective_bytes={key: talk.bytes for key, talk in talks.items()},
        moves=[
            [move.instruction.source or move.instruction.name, move.bytes]
            for move in hlo.moves(parsed)[:_MOVES]
        ],
    )
