"""Sentences with their evidence, which fail when they do not hold."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdutils.evidence.effect import CONFIRMED, Effect, seeds_wanted
from kdutils.evidence.estimate import Estimate
from kdutils.evidence.terminal import printable

__all__ = ["CHECK_MIMETYPE", "CLAIM_MIMETYPE", "CheckError", "ClaimError", "Statement", "check", "claim"]

CLAIM_MIMETYPE = "application/vnd.kdutils.claim+json"
CHECK_MIMETYPE = "application/vnd.kdutils.check+json"
CLAIM_SEEDS = 5

STORE = "KDUTILS_STORE"
"""Set where a chapter is executed to be stored: a claim must then be sure to hold in a fresh run, too."""

RECORD = "KDUTILS_RECORD"
"""Set where a chapter is repeated: what does not hold is shown and counted, and does not end the run."""


class ClaimError(AssertionError):
    """A sentence that the measurement does not support."""


class CheckError(AssertionError):
    """A check that fails."""


@dataclass(frozen=True)
class Statement:
    """A claim or a check with its evidence; it displays itself, and the book lists it.

    Attributes:
        sentence: what the reader may take away.
        evidence: lines with the numbers.
        mimetype: :data:`CLAIM_MIMETYPE` or :data:`CHECK_MIMETYPE`.
        holds: whether the evidence supports it.
        confirmation: of a claim, the probability that a fresh run confirms it.
        values: of a claim, what each deciding estimate measured, by its label, one number for each seed.
    """

    sentence: str
    evidence: tuple[str, ...]
    mimetype: str = CLAIM_MIMETYPE
    holds: bool = True
    confirmation: float | None = None
    values: tuple[tuple[str, tuple[float, ...]], ...] = ()

    @property
    def is_claim(self) -> bool:
        """Whether it rests on intervals over seeds; else it is a check."""
        return self.mimetype == CLAIM_MIMETYPE

    @property
    def record(self) -> dict[str, Any]:
        """What the notebook keeps of it."""
        kept: dict[str, Any] = {"sentence": self.sentence, "evidence": list(self.evidence), "holds": self.holds}
        if self.confirmation is not None:
            kept |= {"confirmation": round(self.confirmation, 6), "values": [[k, list(v)] for k, v in self.values]}
        return kept

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        evidence = "<br>".join(html.escape(line) for line in self.evidence)
        kind = "kd-claim" if self.is_claim else "kd-check"
        page = f'<div class="{kind}"><strong>{html.escape(self._title)}</strong><br>{evidence}</div>'
        return {
            self.mimetype: self.record,
            "text/html": page,
            "text/plain": self._text,
        }

    @property
    def _title(self) -> str:
        mark = ("✓" if self.is_claim else "≡ Checked:") if self.holds else "✗"
        return f"{mark} {self.sentence}"

    @property
    def _text(self) -> str:
        return "\n    ".join([self._title, *self.evidence])

    def __repr__(self) -> str:
        return printable(self._text)


def claim(sentence: str, *effects: Effect, context: Sequence[Estimate | str] = ()) -> None:
    """State a sentence that intervals over seeds support; raise when they do not.

    Each effect is an estimate held against a number: ``claim("a beats b", (a - b) > 0)``. All of them must hold. Where
    a chapter is executed to be stored, fresh runs must also be sure to confirm them, 999 times in 1,000; what falls
    short of that is an estimate, shown with its interval, and no claim.

    Args:
        sentence: what the reader may take away.
        effects: what decides it.
        context: further estimates, or a text with numbers, that are shown below and decide nothing.

    Raises:
        ClaimError: if an effect does not hold, or is too uncertain to be stored; the message has the numbers, and how
            many seeds would do.
        TypeError: for anything but effects; what is no interval is stated by :func:`check`.
        ValueError: without effects, from values that are not finite, or from fewer than five seeds.
    """
    _require_effects(sentence, effects)
    chance = max(0.0, 1 - sum(1 - effect.confirmation for effect in effects))
    lines = [effect.estimate.sentence for effect in effects]
    lines += [entry.sentence if isinstance(entry, Estimate) else entry for entry in context]
    holds = all(effect.holds for effect in effects)
    values = tuple((effect.estimate.label, effect.estimate.values) for effect in effects)
    stated = Statement(sentence, tuple(lines), CLAIM_MIMETYPE, holds, chance, values)
    if not holds and not os.environ.get(RECORD):
        raise ClaimError("\n    ".join([f"does not hold: {sentence}", *lines]))
    if chance < CONFIRMED and os.environ.get(STORE):
        raise ClaimError("\n    ".join([_too_uncertain(sentence, effects, chance), *lines]))
    _display(stated)


def check(sentence: str, holds: bool, *evidence: str) -> None:
    """State what needs no seeds: a theorem checked numerically, an equality, something true by construction.

    Args:
        sentence: what was checked.
        holds: whether it came out so.
        evidence: texts with the numbers, such as the largest difference.

    Raises:
        CheckError: if it does not hold.
        TypeError: if ``holds`` is no truth value, or evidence is no text.
        ValueError: without evidence.
    """
    if isinstance(holds, Effect):
        raise TypeError(f"check takes a truth value; {sentence!r} rests on an interval, so state it by claim")
    if getattr(holds, "shape", None) == () and "bool" in str(getattr(holds, "dtype", "")):
        holds = bool(holds)
    if not isinstance(holds, bool):
        raise TypeError(f"holds must be True or False, such as error < 1e-6; got {holds!r} for {sentence!r}")
    if not evidence:
        raise ValueError(f"check wants the evidence behind {sentence!r}: a text with the numbers")
    for text in evidence:
        if not isinstance(text, str):
            raise TypeError(f"evidence of a check is a text with the numbers; got {text!r} for {sentence!r}")
    if not holds and not os.environ.get(RECORD):
        raise CheckError("\n    ".join([f"does not hold: {sentence}", *evidence]))
    _display(Statement(sentence, evidence, CHECK_MIMETYPE, holds))


def _require_effects(sentence: str, effects: Sequence[Effect]) -> None:
    if not effects:
        raise ValueError(f"claim wants the effect behind {sentence!r}, such as difference > 0")
    for effect in effects:
        if isinstance(effect, Estimate):
            raise TypeError(f"claim wants an effect for {sentence!r}: write {effect.label!r} > 0, or < 0")
        if not isinstance(effect, Effect):
            raise TypeError(
                f"claim wants effects, such as difference > 0, for {sentence!r}; got {effect!r}. What is no interval "
                "over seeds is stated by check(sentence, holds, evidence)"
            )
        values = effect.estimate.values
        if not all(map(math.isfinite, values)):
            raise ValueError(f"a claim wants finite values; {effect.estimate.label!r} has {values}")
        if len(values) < CLAIM_SEEDS:
            raise ValueError(f"a claim wants at least {CLAIM_SEEDS} seeds; {effect.estimate.label!r} has {len(values)}")


def _too_uncertain(sentence: str, effects: Sequence[Effect], chance: float) -> str:
    wanted = seeds_wanted(effects)
    enough = f"{wanted} seeds would do" if wanted else "a thousand seeds would not do"
    return (
        f"too uncertain for a claim: {sentence}\n    A fresh run over as many seeds would confirm it with probability "
        f"{chance:.4f}, and {CONFIRMED} is wanted; at this ratio of effect to spread {enough}. Take more seeds, or "
        "show the estimate with its interval and claim nothing"
    )


def _display(stated: Statement) -> None:
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
