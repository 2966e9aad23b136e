"""The page on training at full scale: its code runs, block after block, as a reader would type it."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "appendix" / "training.md"


def test_the_code_on_the_page_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
