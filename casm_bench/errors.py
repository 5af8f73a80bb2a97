"""The two kinds of error a user can meet; the command line turns them into exit codes."""


class CasmBenchError(Exception):
    """Base of all errors that are explained to the user in a sentence, without a traceback."""

    exit_code = 1


class UsageError(CasmBenchError):
    """What was asked for cannot be done as asked: unknown name, missing file, wrong option."""

    exit_code = 2


class WorkError(CasmBenchError):
    """The request was fine, but the work failed: corrupt data, full disk, a method that broke."""

    exit_code = 1
