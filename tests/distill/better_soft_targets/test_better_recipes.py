"""Each method trains the pairs that come with the package, by name."""

import pytest
import torch

import kdutils as kd
from kdutils.command import assemble, recipe

METHODS = {
    "curriculum-temperature": {"labels", "soft targets"},
    "dist": {"labels", "correlation"},
    "dkd": {"labels", "decoupled"},
    "standardized-logits": {"labels", "standardized"},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_of_a_method_trains_a_small_pair(method):
    this = recipe.load("glyphs", ["data.count=70", "fit.epochs=1"], method=method)
    data = assemble.load_data(this.settings["data"])
    classes, shape = len(data.train.classes), data.train.shape
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = assemble.build_model(this, classes, shape)
        teacher = assemble.build_model(recipe.load(this.teacher), classes, shape)
        objective = assemble.build_objective(this, model, teacher, data.train)
        history = kd.fit(objective, data.train, progress=False, device="cpu", **assemble.fit_options(this))
    assert set(history.steps) == METHODS[method]
