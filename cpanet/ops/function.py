"""Operators with a gradient of their own, which hold what it needs no longer than until it is asked for."""

from __future__ import annotations

from typing import Any

from cpanet.runtime import jt


class Function(jt.Function):
    """``jt.Function`` whose operands Python lets go when the gradient is built.

    Jittor frees a map once the last operator that reads it has run, unless Python still holds it: attributes of a function
    live as long as the graph.
    """

    _kept: tuple | None = None

    def keep(self, *operands: Any) -> None:
        """Keep ``operands`` for :meth:`release`."""
        self._kept = operands

    def release(self) -> tuple:
        """The operands that were kept, once: RuntimeError for a second gradient through the same result."""
        kept, self._kept = self._kept, None
        if kept is None:
            raise RuntimeError("a second gradient through the same result: compute the result again")
        return kept
