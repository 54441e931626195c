"""Series decomposition: a network is a chain of blocks that meet in single operations.

An operation that every way through the network passes is a joint: all before it has ended when it
starts, and all after it starts when it has ended. So the latency of the whole is the sum of the
blocks' latencies, and what is best between two joints depends on the devices of these alone.
"""

from __future__ import annotations

from dataclasses import replace

from lepton.runtime.placement.problem import Operation, Problem, Tensor

__all__ = ["block_problem", "joints"]


def joints(problem: Problem) -> list[int]:
    """Return the operations that every way passes, in order; none without one start and one end.

    They are found where no tensor passes by: nothing made before them is read after them.
    """
    count = len(problem.operations)
    last = list(range(count))
    for number, operation in enumerate(problem.operations):
        for tensor in operation.operands:
            last[problem.tensors[tensor].source] = number
    sources = [n for n, operation in enumerate(problem.operations) if not operation.operands]
    sinks = [number for number, reader in enumerate(last) if reader == number]
    if len(sources) != 1 or len(sinks) != 1:
        return []
    found: list[int] = []
    reach = 0
    for number in range(count):
        if reach <= number:
            found.append(number)
        reach = max(reach, last[number])
    return found


def block_problem(problem: Problem, first: int, last: int) -> Problem:
    """Return the problem of operations [first, last], the first of which has run already."""
    inside = range(first, last + 1)
    numbers = {
        tensor: at
        for at, tensor in enumerate(
            dict.fromkeys(t for n in inside if n > first for t in problem.operations[n].operands)
        )
    }
    tensors = tuple(
        Tensor(problem.tensors[tensor].source - first, problem.tensors[tensor].size_bytes)
        for tensor in numbers
    )

    def moved(number: int) -> Operation:
        operation = problem.operations[number]
        if number == first:
            spent = tuple(None if cost is None else 0 for cost in operation.cost_ns)
            return replace(operation, cost_ns=spent, operands=(), weight_bytes=0)
        return replace(operation, operands=tuple(numbers[t] for t in operation.operands))

    operations = tuple(moved(number) for number in inside)
    return replace(problem, operations=operations, tensors=tensors)
