"""Sentences that a person wrote for a result, in which the program fills in the numbers."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdutils.evidence.estimate import Estimate
from kdutils.evidence.terminal import printable

__all__ = ["SAY_MIMETYPE", "Said", "say"]

SAY_MIMETYPE = "application/vnd.kdutils.say+json"

FORMATS = ("", "mean", "range")
"""How an estimate is written: with its interval, without it, or the interval alone."""


@dataclass(frozen=True)
class Said:
    """A sentence with its numbers; a notebook shows it as text.

    Attributes:
        text: as it is read.
        template: as it was written, with names in the places of numbers.
        values: the numbers by name, from which a template in another language can be filled.
    """

    text: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return printable(self.text)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        record = {"template": self.template, "values": dict(self.values)}
        return {SAY_MIMETYPE: record, "text/markdown": self.text, "text/plain": printable(self.text)}


def say(template: str, **values: Any) -> Said:
    """A sentence for a result, with numbers filled in: ``say("Yes, by {gain}.", gain=soft - labels)``.

    Args:
        template: Markdown with the names of values in braces, each with a format of Python's if it is a number
            (``{share:.0%}``). An :class:`~kdutils.Estimate` is written with its interval (``{gain}``: 2.8 points, 1.2
            to 4.4 in brackets), as ``{gain:mean}`` without, as ``{gain:range}`` the interval alone.
        values: numbers, texts and estimates.

    Raises:
        KeyError: if a name has no value.
        ValueError: if a value is named nowhere, or a format is none of it; both name it.
        TypeError: if a value is none of the three.
    """
    writer = _Writer()
    text = writer.vformat(template, (), values)
    if unused := sorted(values.keys() - writer.used):
        raise ValueError(f"the value {unused[0]!r} stands nowhere in {template!r}")
    return Said(text, template, {name: _kept(name, value) for name, value in values.items()})


class _Writer(string.Formatter):
    """Fills in names only, and writes estimates as a person would."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def get_value(self, key: int | str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """The value of a name."""
        if key not in kwargs:
            known = ", ".join(map(repr, kwargs)) or "none"
            raise KeyError(f"the sentence names {key!r}, and the values are {known}")
        self.used.add(str(key))
        return kwargs[str(key)]

    def format_field(self, value: Any, format_spec: str) -> str:
        """A value in its place."""
        if isinstance(value, Estimate):
            return _estimate(value, format_spec)
        try:
            return format(value, format_spec).replace("%", "\N{NO-BREAK SPACE}%" if format_spec.endswith("%") else "%")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{value!r} cannot be written as {format_spec!r}: {error}") from None


def _estimate(value: Estimate, form: str) -> str:
    if form not in FORMATS:
        raise ValueError(f"the estimate {value.label!r} cannot be written as {form!r}; there are mean and range")
    scale, digits, unit = value.shown
    unit = unit.replace(" ", "\N{NO-BREAK SPACE}")
    mean, low, high = (_number(number * scale, digits) for number in (value.mean, value.low, value.high))
    if form == "mean":
        return f"{mean}{unit}"
    return f"{low} to {high}{unit}" if form == "range" else f"{mean}{unit} ({low} to {high})"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _kept(name: str, value: Any) -> Any:
    if isinstance(value, Estimate):
        return {"mean": value.mean, "low": value.low, "high": value.high, "seeds": len(value.values)}
    if isinstance(value, bool | int | float | str):
        return value
    if getattr(value, "shape", None) == ():  # a number of numpy or torch
        return value.item()
    raise TypeError(f"{name} must be a number, a text or an Estimate; got {type(value).__name__}")
