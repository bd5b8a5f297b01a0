"""The one exception that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right: the message names the thing and the remedy.

    The entry points print the message alone, without a traceback, and exit with status 2.
    """


def in_one_line(error: BaseException) -> str:
    """``error`` for ``result.json``, tables and logs; of others than ours the first line, with the kind of error."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
