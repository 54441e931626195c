"""A program: instructions, constants, memory map and tensors in one safe, checksummed file.

Nothing in the file is ever executed.
"""

from lepton.program.arrays import read_arrays
from lepton.program.container import program_manifest
from lepton.program.files import atomic_write, read_file, refuse_special
from lepton.program.names import one_line
from lepton.program.objective import Objective
from lepton.program.reading import load_program, program_from_parts, starts_like_program
from lepton.program.records import (
    MAXIMUM_TENSOR_ELEMENTS,
    SCRATCHPAD,
    Arena,
    Operator,
    Program,
    ProgramTensor,
    Region,
)
from lepton.program.samples import as_array, as_batch, only_input

__all__ = ["Arena", "Objective", "Operator", "Program", "ProgramTensor", "Region", "atomic_write"]
__all__ += ["load_program", "one_line", "program_from_parts", "program_manifest", "read_file"]
__all__ += ["MAXIMUM_TENSOR_ELEMENTS", "SCRATCHPAD", "as_array", "as_batch", "only_input"]
__all__ += ["read_arrays", "refuse_special", "starts_like_program"]
