"""The one tree of errors that fasthash raises on purpose."""


class FastHashError(Exception):
    """Every error that the package raises on purpose; its text is one line that names the cause."""


class ArgumentError(FastHashError, ValueError):
    """An argument has the wrong type, shape or value; the text names it, what came and what was wanted."""


class ReadError(FastHashError):
    """A file or image a user brought cannot be used; the text names the file."""


class CorruptFileError(FastHashError):
    """A file that fasthash wrote is damaged, cut short or of another kind; the text names the file."""


class EncoderError(FastHashError):
    """An encoder is unknown, broken, or not the one that an archive was made with."""


class MissingDependencyError(FastHashError, ImportError):
    """An optional dependency is not installed; the text names the extra that brings it."""
