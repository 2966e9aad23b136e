"""The exact versions that build the book."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", PINS)
def test_every_pin_installs_on_the_oldest_python_that_the_book_promises(name):
    try:
        wanted = importlib.metadata.metadata(name).get("Requires-Python")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not wanted on this platform")
    assert wanted is None or SpecifierSet(wanted).contains("3.11.0"), f"{name} wants Python {wanted}"
