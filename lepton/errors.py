"""The error tree: every fault of the user's input is one clear sentence."""

__all__ = [
    "CheckError",
    "ChipError",
    "CompileError",
    "EncodingError",
    "ImportFailure",
    "InputError",
    "LeptonError",
    "ProgramError",
]


class LeptonError(Exception):
    """Base of every error that Lepton raises on purpose; its text is one sentence for the user."""


class InputError(LeptonError):
    """A file, an array or an option that the user gave is at fault."""


class ImportFailure(InputError):
    """A model file cannot be read as a model, or uses what no importer knows."""


class ChipError(InputError):
    """A chip description has a wrong key, a wrong value, or contradicts itself."""


class ProgramError(InputError):
    """A program file is damaged, of another version, or inconsistent."""


class EncodingError(ProgramError):
    """Bytes or assembly text are not a legal instruction."""


class CompileError(LeptonError):
    """A legal model cannot be brought onto this chip."""


class CheckError(ProgramError):
    """A program has undefined behaviour: a race, an uninitialized read, a deadlock, a bound."""
