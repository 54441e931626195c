"""The actions whose energy is counted; docs/energy.md section 2 defines each."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Action"]


class Action(IntEnum):
    """Columns of the action counts of the chip; those of the memories are in the trace."""

    MAC = 0
    OPERAND_SHIFT = 1
    SUM_SHIFT = 2
    ROW_SUM = 3
    ZERO_POINT = 4
    WEIGHT_LATCH = 5
    LINE_BUFFER = 6
    FEED_SLICE = 7
    STATIONARY_SLICE = 8
    ACCUMULATOR_READ = 9
    ACCUMULATOR_WRITE = 10
    WEIGHT_BUFFER_READ = 11
    WEIGHT_BUFFER_WRITE = 12
    DECODER_BYTE = 13
    VECTOR_READ = 14
    VECTOR_WRITE = 15
    PARAMETER_READ = 16
    LANE_STEP = 17
    REQUANTIZE_Q31 = 18
    REQUANTIZE_FLOAT32 = 19
    REQUANTIZE_FLOAT64 = 20
    COMPARE = 21
    BINARY_Q31 = 22
    BINARY_FLOAT = 23
    LOOK_UP = 24
    POOL_ADD = 25
    SOFTMAX = 26
    INTERPOLATE = 27
    LOAD_BYTE = 28
    STORE_BYTE = 29
    INSTRUCTION = 30
    NPU_CYCLE = 31
    WEIGHT_SYMBOL = 32
    ENTROPY_SYMBOL = 33
    OPERAND_SELECT = 34
    REPLICA_SUM = 35
