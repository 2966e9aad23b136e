"""Figures that a reader can move on the pages of the book, where a small script draws them; elsewhere they stand still.

What such a figure needs is in the output of the cell that measured it: numbers as JSON for the page, and a picture for
GitHub, Colab and paper.
"""

from kdutils.live.adaptation import adaptation
from kdutils.live.answers import answers
from kdutils.live.curves import curves
from kdutils.live.efficiency import efficiency
from kdutils.live.figure import LIVE_MIMETYPE, Live
from kdutils.live.temperature import temperature
from kdutils.live.witness import witness

__all__ = ["LIVE_MIMETYPE", "Live", "adaptation", "answers", "curves", "efficiency", "temperature", "witness"]
