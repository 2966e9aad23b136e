"""Figures: what is given is drawn, and can be told apart."""

import pytest
import torch

from kdutils import plot
from kdutils.evidence.estimate import Estimate


def estimate(value: float) -> Estimate:
    return Estimate((value, value + 0.1))


@pytest.mark.parametrize(("series", "references"), [(1, 0), (7, 3), (12, 5)])
def test_curves_draw_every_series_and_reference_each_with_its_own_look(series, references):
    figure = plot.curves(
        [1, 2],
        {f"series {n}": [estimate(n), estimate(n + 1)] for n in range(series)},
        reference={f"reference {n}": estimate(-n) for n in range(references)},
        xlabel="x",
        ylabel="y",
    )
    lines = figure.axes[0].get_lines()
    names = [*(f"series {n}" for n in range(series)), *(f"reference {n}" for n in range(references))]
    assert [line.get_label() for line in lines] == names
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == names
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(names)


def test_a_long_title_of_a_picture_is_broken_between_words():
    figure = plot.images(torch.zeros(2, 1, 4, 4), ["fox", "another animal"])
    assert [axes.get_title() for axes in figure.axes] == ["fox", "another\nanimal"]
