"""Keep Python 3.11 alive under a PySide6 that was built for newer ones.

From 3.12 on, None, True and False are immortal, and PySide6 6.12 counts on it: each call of a C++
function without a result takes one reference of None that it never had.  Under 3.11 the process
dies ("deallocating None") after some thousand calls.  Giving these objects more references than a
run can use up makes them as good as immortal.
"""

import ctypes
import sys

_MANY = 1 << 40


def protect_constants() -> None:
    """Raise the reference counts of the constants where Python counts them (once is enough)."""
    if sys.version_info >= (3, 12):
        return
    for constant in (None, True, False, NotImplemented, Ellipsis):
        count = ctypes.c_ssize_t.from_address(id(constant))
        if count.value < _MANY:
            count.value += _MANY
