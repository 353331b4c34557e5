"""The one exception that users see: what happened, why, and what to do.

Every condition that a user can cause or mend is raised as a `TomoSegError` with a stable code.
The command line prints it as one line and exits with status 2; the worker process reports it as
an ``error`` event; the panel shows it. Anything else that escapes is a defect of the program and
is reported as ``internal``.
"""

from __future__ import annotations

import errno


class TomoSegError(Exception):
    """An error with a stable code, a message for people and a hint at what to do.

    Args:
        code: Stable, lower-case, hyphenated identifier, e.g. ``"volume-unreadable"``. Programs
            may compare it; it never changes its meaning.
        message: One sentence: what happened, naming the file or value.
        hint: One sentence: what the user can do about it.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] {self.hint}"

    def __reduce__(self) -> tuple[type[TomoSegError], tuple[str, str, str]]:
        return type(self), (self.code, self.message, self.hint)


class TomoSegWarning(UserWarning):
    """Something that the user should know although the work goes on; see `TomoSegError`.

    Issued with `warnings.warn`; the worker process reports it as a ``warning`` event.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] {self.hint}".rstrip()


def shown_name(name: str) -> str:
    """A file's name as it can be written: what is not UTF-8 in it becomes U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def name_error(error: BaseException) -> TomoSegError | None:
    """The error for a path that the system takes for none, wherever it is met; else None."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        reason = "it is too long"
    elif isinstance(error, RuntimeError) and "home directory" in str(error):
        reason = "there is no such user as after its '~'"
    else:
        return None
    return TomoSegError(
        "path-invalid",
        f"A path that was given is not one: {reason}.",
        "Check the paths; put those that begin with '~' after './'.",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, as Python, torch, ITK and the system's loader say it."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    words = (
        "out of memory",
        "allocate memory",
        "not enough memory",
        "bad_alloc",
        "cudnn_status_alloc_failed",
        "failed to map segment",
        "can't start new thread",
    )
    return isinstance(error, (RuntimeError, ImportError)) and any(
        word in str(error).lower() for word in words
    )
