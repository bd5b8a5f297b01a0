"""The one exception that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right: the message names the thing and the remedy.

    The entry points print the message alone, without a traceback, and exit with status 2.
    """
