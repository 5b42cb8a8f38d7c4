"""Exceptions for the status codes of TensorFlow's C API (`tensorflow/c/tf_status.h`)."""

from __future__ import annotations


class NotNative(RuntimeError):
    """A model that cannot be loaded or called through the C API; the text is the reason."""


class OpError(Exception):
    """An error of a model's call, like `tf.errors.OpError`.

    Attributes:
      message: TensorFlow's text, which may contain values of rows.
      error_code: the status code; 8 for exhausted memory.
    """

    error_code = 2

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message


_NAMES = (
    *("Cancelled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied"),
    *("ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable"),
    *("DataLoss", "Unauthenticated"),
)
_CLASSES = {code: type(f"{name}Error", (OpError,), {"error_code": code}) for code, name in enumerate(_NAMES, start=1)}
"""By status code; the names are those of the classes in `tf.errors`, since dead letters contain them."""


def error_of(code: int, message: str) -> OpError:
    """Return the exception for a status that is not OK."""
    return _CLASSES.get(code, OpError)(message)


def first_line(error: Exception) -> str:
    """Return the beginning of the text of an error of TensorFlow, or its type if it has none."""
    text = str(getattr(error, "message", None) or error).strip()
    return (text.splitlines() or [type(error).__name__])[0][:500]
