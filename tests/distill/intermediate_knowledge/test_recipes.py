"""Each method trains the pairs that come with the package, by name."""

import pytest
import torch

import kdutils as kd
from kdutils.command import assemble, recipe

METHODS = [
    "attention-transfer",
    "crd",
    "hints",
    "jacobian-matching",
    "nst",
    "pkt",
    "review-kd",
    "rkd",
    "sp",
    "vid",
]
LITTLE = ["data.count=70", "fit.epochs=1"]


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_of_a_method_trains_a_small_pair(method):
    this = recipe.load("glyphs", LITTLE + (["objective.negatives=16"] if method == "crd" else []), method=method)
    data = assemble.load_data(this.settings["data"])
    classes, shape = len(data.train.classes), data.train.shape
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = assemble.build_model(this, classes, shape)
        teacher = assemble.build_model(recipe.load(this.teacher), classes, shape)
        objective = assemble.build_objective(this, model, teacher, data.train)
        history = kd.fit(objective, data.train, progress=False, device="cpu", **assemble.fit_options(this))
    assert len(history.epochs) == 1
    assert set(history.steps) == {"labels", getattr(objective, "term", "slopes")}


@pytest.mark.parametrize("method", METHODS)
def test_the_data_is_no_setting_of_a_recipe(method):
    with pytest.raises(ValueError, match=r"'objective.data' is not known"):
        recipe.load("glyphs", ["objective.data=3"], method=method)


def test_layers_can_be_named_in_a_recipe():
    this = recipe.load("glyphs", ["objective.layers.block1=block2", "objective.layers.block2=block3"], method="hints")
    assert this.settings["objective"]["layers"] == {"block1": "block2", "block2": "block3"}
    data = assemble.load_data(recipe.load("glyphs", LITTLE).settings["data"]).train
    model = assemble.build_model(this, 62, (1, 16, 16))
    teacher = assemble.build_model(recipe.load(this.teacher), 62, (1, 16, 16))
    objective = assemble.build_objective(this, model, teacher, data)
    assert (objective.student_layers, objective.teacher_layers) == (("block1", "block2"), ("block2", "block3"))
