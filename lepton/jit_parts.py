"""Compilation of functions that only ever become part of other kernels.

Numba optimizes every function together with all that it calls, and makes machine code and Python
wrappers of it: a function ten calls deep is optimized ten times before the kernel that it is for.
A part stops at plain LLVM code, which its callers link; the kernel alone is optimized in full.

This builds on names that Numba does not promise to keep. With a version that it was not tried with,
`part_options` is empty and parts are compiled as any function: the same code, in twice the time.
"""

from __future__ import annotations

from typing import Any

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import LoweringPass, register_pass
from numba.core.typed_passes import NativeLowering

__all__ = ["is_tried", "part_options"]

_TRIED = ("0.68",)
"""Versions of Numba with which the tests passed of what builds on its inner names."""


class _PartLibrary(JITCodeLibrary):
    """Code to link, of which no machine code is made."""

    def _optimize_final_module(self) -> None:
        """Inline what must be; without this the kernel comes out slower."""
        passes, builder = self._codegen._module_pass_manager(  # pyright: ignore[reportPrivateUsage]
            loop_vectorize=False, slp_vectorize=False, opt=0, cost="cheap"
        )
        passes.run(self._final_module, builder)

    def _finalize_final_module(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=False, analysis_only=False)
class _Link(LoweringPass):
    """Make a part known to its callers under an entry that Python must not use."""

    _name = "lepton_link_part"

    def __init__(self) -> None:
        LoweringPass.__init__(self)

    def run_pass(self, state: Any) -> Any:
        # Numba takes only a built-in function for an entry, and tells parts apart by it
        entry = [state.library].copy
        state.cr = state.cr._replace(cfunc=entry)
        state.targetctx.insert_user_function(entry, state.cr.fndesc, [state.library])
        return True


class _PartCompiler(CompilerBase):
    """Numba's compiler without its last steps."""

    def define_pipelines(self) -> list[Any]:
        state = self.state
        state.flags.no_compile = True
        state.library = _PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        passes = DefaultPassBuilder.define_nopython_pipeline(state)
        passes.add_pass_after(_Link, NativeLowering)
        passes.finalize()
        return [passes]


def is_tried(version: str = numba.__version__) -> bool:
    """Return whether a version of Numba is known to keep the names that this package builds on."""
    return ".".join(version.split(".")[:2]) in _TRIED


def part_options(version: str = numba.__version__) -> dict[str, Any]:
    """Return the options with which a version of Numba compiles a function as a part."""
    if not is_tried(version):
        return {}
    return {"no_cfunc_wrapper": True, "pipeline_class": _PartCompiler}
