"""Sentences with their evidence, which fail when they do not hold."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from kdutils.evidence.estimate import Estimate

__all__ = ["CLAIM_MIMETYPE", "Claim", "ClaimError", "claim"]

CLAIM_MIMETYPE = "application/vnd.kdutils.claim+json"
CLAIM_SEEDS = 5


class ClaimError(AssertionError):
    """A sentence that the measurement does not support."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the book with its evidence; it displays itself, and the book lists it."""

    sentence: str
    evidence: tuple[str, ...]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        record = {"sentence": self.sentence, "evidence": list(self.evidence), "holds": True}
        evidence = "<br>".join(html.escape(line) for line in self.evidence)
        page = f'<div class="kd-claim"><strong>✓ {html.escape(self.sentence)}</strong><br>{evidence}</div>'
        return {CLAIM_MIMETYPE: record, "text/html": page, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return "\n    ".join([f"✓ {self.sentence}", *self.evidence])


def claim(sentence: str, holds: bool, *evidence: Estimate | str) -> None:
    """State a sentence that the measurement supports, with its evidence; raise when it does not.

    Args:
        sentence: what the reader may take away.
        holds: whether the measurement supports it, such as ``difference.low > 0``.
        evidence: the estimates that decide it, or a text with their numbers.

    Raises:
        ClaimError: if it does not hold; the message has the numbers.
        ValueError: without evidence, or from an estimate over fewer than five seeds.
    """
    if not evidence:
        raise ValueError(f"claim wants the evidence behind {sentence!r}: the estimates, or a text with the numbers")
    few = [e for e in evidence if isinstance(e, Estimate) and len(e.values) < CLAIM_SEEDS]
    if few:
        raise ValueError(f"a claim wants at least {CLAIM_SEEDS} seeds; {few[0].label!r} has {len(few[0].values)}")
    lines = tuple(e.sentence if isinstance(e, Estimate) else e for e in evidence)
    if not bool(holds):
        raise ClaimError("\n    ".join([f"does not hold: {sentence}", *lines]))
    stated = Claim(sentence, lines)
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        print(stated)
        return
    if get_ipython() is None:
        print(stated)
    else:
        display(stated)
