"""A repetition moves every seed; without one, a seed is itself."""

import ast
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.data.draws import Draws, mixed_seed
from kdutils.evidence.seeds import FRESH, fresh

ROOT = Path(__file__).parents[2]
SEEDING = {"manual_seed", "default_rng", "RandomState", "seed_everything"}


@pytest.fixture(autouse=True)
def _no_repetition(monkeypatch):
    monkeypatch.delenv(FRESH, raising=False)


def test_without_a_repetition_a_seed_is_itself(monkeypatch):
    assert [fresh(seed) for seed in range(3)] == [0, 1, 2]
    monkeypatch.setenv(FRESH, "0")
    assert fresh(7) == 7


def test_in_each_repetition_all_seeds_are_others(monkeypatch):
    moved = []
    for number in ("1", "2", "3"):
        monkeypatch.setenv(FRESH, number)
        moved += [fresh(seed) for seed in range(200)]
        assert fresh(5) == fresh(5)
    assert len(set(moved)) == 600
    assert all(200 <= seed < 2**31 for seed in moved)


@pytest.mark.parametrize("value", ["one", "-1", "1.5", "²"])
def test_a_number_that_is_none_is_named(monkeypatch, value):
    monkeypatch.setenv(FRESH, value)
    with pytest.raises(ValueError, match=f"{FRESH} numbers a repetition.*{value}"):
        fresh(0)


def digits() -> kd.Dataset:
    return kd.data.digits()


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten().float() for value in model.state_dict().values()])


def trained(seed: int) -> torch.Tensor:
    few = digits().subset(range(64))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(few.inputs[0].numel(), 10))
    kd.fit(kd.Supervised(model), few, epochs=1, batch_size=8, seed=seed, progress=False)
    return weights(model)


DRAWING = {
    "glyphs": lambda seed: kd.data.glyphs("digits", 10, seed=seed).inputs,
    "split": lambda seed: digits().split(100, seed=seed)[0].inputs,
    "few": lambda seed: digits().few(2, seed=seed).inputs,
    "blended": lambda seed: kd.data.blended(digits().subset(range(8)), seed=seed).inputs,
    "order of batches": lambda seed: next(digits().batches(16, shuffle=True, seed=seed)).index,
    "augmentation": lambda seed: next(digits().batches(8, augment=kd.data.augment.affine(), seed=seed)).inputs,
    "draws": lambda seed: Draws.of(torch.arange(8), seed).uniform(4),
    "mixed seeds": lambda seed: torch.tensor(mixed_seed(seed, 1)),
    "fit": trained,
    "compare": lambda seed: torch.tensor(
        kd.compare({"a": lambda s: torch.rand(()).item()}, [seed, seed + 1], progress=False)["a"].values
    ),
}


@pytest.mark.parametrize("name", DRAWING)
def test_what_a_seed_draws_moves_in_a_repetition_and_only_there(monkeypatch, name):
    before = DRAWING[name](0)
    assert torch.equal(before, DRAWING[name](0))
    monkeypatch.setenv(FRESH, "1")
    assert not torch.equal(before, DRAWING[name](0))
    monkeypatch.setenv(FRESH, "0")
    assert torch.equal(before, DRAWING[name](0))


def unmoved(code: str) -> list[str]:
    """Calls that seed a generator with a number that no repetition moves."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        seeds = [keyword.value for keyword in node.keywords if keyword.arg == "random_state"]
        seeds += node.args[:1] if name in SEEDING else []
        for seed in seeds:
            text = ast.unparse(seed)
            if not text.startswith(("fresh(", "kd.fresh(", "mixed_seed(")):
                found.append(ast.unparse(node))
    return found


def test_a_seed_that_no_repetition_moves_is_found():
    assert unmoved("torch.manual_seed(0)\nnp.random.default_rng(seed)\nsplit(x, random_state=3)") != []
    assert unmoved("torch.manual_seed(kd.fresh(0)); KFold(random_state=fresh(seed))") == []


def test_no_code_of_the_package_seeds_past_the_repetition():
    allowed = {"kdutils/training/checkpoint.py"}  # puts back a state, or takes a seed that was mixed before
    found = {
        str(path.relative_to(ROOT)): calls
        for path in (ROOT / "kdutils").rglob("*.py")
        if (calls := unmoved(path.read_text(encoding="utf-8")))
    }
    assert {place: calls for place, calls in found.items() if place not in allowed} == {}


def test_no_chapter_seeds_past_the_repetition():
    for path in (ROOT / "chapters").rglob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and "%" not in cell.source.partition("\n")[0] and "%pip" not in cell.source:
                assert unmoved(cell.source) == [], f"{path.name}, cell {cell.id}"
