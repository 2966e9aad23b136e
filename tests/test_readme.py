"""The first lines of code that a visitor sees."""

import re
from pathlib import Path

from kdutils.training.objective import Objective

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs_as_it_stands():
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert not isinstance(names["student"], Objective)
    assert not any(parameter.requires_grad for parameter in names["teacher"].parameters())
    accuracy = names["kd"].measure.accuracy(names["student"], names["train"])
    assert accuracy > 0.3  # ten classes


def test_what_it_shows_is_there():
    for place in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / place).exists(), place
