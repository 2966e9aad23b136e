"""Masks prune exactly what is asked, and survive everything that happens to a network."""

import copy
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import kdutils as kd
from kdutils.compress import bake, magnitude, masks_of, prune, put_masks, sparsity
from kdutils.compress.pruning.masks import require_unmasked
from tests.compress.pruning.common import blobs, chain, images, seeded

OPTIONS = {"epochs": 2, "batch_size": 16, "progress": False, "device": "cpu"}


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.333, 0.5, 0.77])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_exactly_the_rounded_share_is_masked(ratio, scope):
    masks = masks_of(prune(chain(), ratio, scope=scope))
    assert list(masks) == ["0.0", "1.0", "4"]  # the head, 6, has none
    counts = {name: int((~mask).sum()) for name, mask in masks.items()}
    if scope == "local":
        assert counts == {name: round(ratio * mask.numel()) for name, mask in masks.items()}
    else:
        assert sum(counts.values()) == round(ratio * sum(mask.numel() for mask in masks.values()))


def test_the_smallest_weights_go_as_a_loop_finds_them():
    model = chain()
    weights = [
        (abs(w), n, i)
        for n in ("0.0", "1.0", "4")
        for i, w in enumerate(model.get_submodule(n).weight.flatten().tolist())
    ]
    lost = sorted(weights)[: round(0.4 * len(weights))]
    masks = masks_of(prune(model, 0.4))
    assert {(n, i) for _, n, i in lost} == {
        (n, i) for n, m in masks.items() for i in (~m.flatten()).nonzero()[:, 0].tolist()
    }


def test_equal_scores_go_by_place_and_never_more_than_asked():
    model = chain()
    masks = masks_of(prune(model, 0.25, scores=torch.ones_like, scope="local"))
    for mask in masks.values():
        count = round(0.25 * mask.numel())
        assert not mask.flatten()[:count].any()
        assert mask.flatten()[count:].all()


@given(st.lists(st.integers(0, 2), min_size=9, max_size=9), st.floats(0, 0.99), st.sampled_from(["global", "local"]))
def test_however_many_scores_are_equal_the_count_is_exact_or_refused(values, ratio, scope):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(1, 3))
    scores = {"0": torch.tensor(values[:6]).view(2, 3), "1": torch.tensor(values[6:]).view(3, 1)}
    try:
        masks = masks_of(prune(model, ratio, scores=scores, scope=scope, keep=()))
    except ValueError as error:
        largest = float(str(error).rsplit(" ", 1)[1])
        assert largest < ratio
        masks, ratio = masks_of(prune(model, largest, scores=scores, scope=scope, keep=())), largest
    lost = {name: int((~mask).sum()) for name, mask in masks.items()}
    assert sum(lost.values()) == (round(ratio * 9) if scope == "global" else round(ratio * 6) + round(ratio * 3))
    assert lost["0"] < 6
    assert lost["1"] < 3
    highest_lost = max((scores[n][~m].max() for n, m in masks.items() if lost[n]), default=0)
    assert scope == "local" or all(scores[n][m].min() >= highest_lost for n, m in masks.items())


def test_scores_by_name_rank_as_a_function_does():
    model = chain()
    given = {name: magnitude(model.get_submodule(name).weight) for name in ("0.0", "1.0", "4")}
    one, other = masks_of(prune(chain(), 0.5, scores=given)), masks_of(prune(model, 0.5))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_the_ratio_counts_the_whole_however_often_one_prunes():
    model = prune(chain(), 0.3)
    before = masks_of(model)
    prune(model, 0.6)
    after = masks_of(model)
    assert all((before[name] | ~after[name]).all() for name in before)  # what was masked stays so
    fewer = sum(int(mask.sum()) for mask in after.values())
    assert fewer == sum(m.numel() for m in after.values()) - round(0.6 * sum(m.numel() for m in after.values()))
    assert sparsity(model) == pytest.approx(0.6, abs=1e-3)
    with pytest.raises(ValueError, match=r"ratio counts what is pruned already.*at least 0\.6.*got 0\.1"):
        prune(model, 0.1)


@pytest.mark.parametrize(("optimizer", "options"), [("sgd", {}), ("nesterov", {}), ("adamw", {"weight_decay": 0.5})])
def test_momentum_and_decay_move_no_zero(optimizer, options):
    """The momentum is from before the pruning, when the weights moved."""
    model = chain().train()
    kind = {"sgd": torch.optim.SGD, "nesterov": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    more = {} if optimizer == "adamw" else {"momentum": 0.9, "weight_decay": 0.1, "nesterov": optimizer == "nesterov"}
    stepping = kind(model.parameters(), lr=0.05, **more, **options)

    def step():
        stepping.zero_grad()
        nn.functional.cross_entropy(model(images(6)), torch.arange(6) % 3).backward()
        stepping.step()

    step()
    prune(model, 0.5)
    gone = {name: ~mask for name, mask in masks_of(model).items()}
    before = {name: model.get_submodule(name).weight.detach().clone() for name in gone}
    for _ in range(3):
        step()
    for name, mask in gone.items():
        layer = model.get_submodule(name)
        assert (layer.weight[mask] == 0).all()
        assert (layer.weight[~mask] != before[name][~mask]).any()
        assert (layer.parametrizations.weight.original.grad[mask] == 0).all()


def test_a_plain_zero_would_move():
    """What masks are for: the control of the test before."""
    model = bake(prune(chain(), 0.5)).train()
    stepping = torch.optim.SGD(model.parameters(), lr=0.05)
    nn.functional.cross_entropy(model(images(6)), torch.arange(6) % 3).backward()
    stepping.step()
    assert sparsity(model) < 0.4


def test_an_infinite_weight_under_a_mask_is_zero():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    put_masks(model, {"0": torch.tensor([[True, False], [True, True]])})
    model[0].parametrizations.weight.original.data[0, 1] = float("inf")
    model(torch.ones(1, 2)).sum().backward()
    assert model[0].weight[0, 1] == 0
    assert model[0].parametrizations.weight.original.grad.isfinite().all()


def test_copies_and_state_dicts_carry_the_masks():
    model = prune(chain(), 0.5)
    expected = model(images())
    copied = copy.deepcopy(model)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    loaded = prune(chain(), 0.0)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (copied, loaded):
        assert torch.equal(other(images()), expected)
        assert sparsity(other) == sparsity(model)
    copied[0][0].parametrizations.weight[0].kept.fill_(True)
    assert torch.equal(model(images()), expected)  # a copy has masks of its own


def test_fit_trains_what_is_kept_and_nothing_else():
    model = prune(chain(), 0.6)
    masks = masks_of(model)
    before = {name: model.get_submodule(name).weight.detach().clone() for name in masks}
    kd.fit(kd.Supervised(model), blobs(), learning_rate=1e-2, average=0.9, **OPTIONS)
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight.detach()
        assert (weight[~mask] == 0).all()
        assert (weight[mask] != before[name][mask]).any()
    assert all(torch.equal(mask, masks[name]) for name, mask in masks_of(model).items())


def test_a_training_with_other_masks_is_not_gone_on_with(tmp_path):
    kd.fit(kd.Supervised(prune(chain(), 0.5)), blobs(), folder=tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match=r"the checkpoint in .* is of another training"):
        kd.fit(kd.Supervised(prune(chain(), 0.6)), blobs(), folder=tmp_path, **OPTIONS)


def test_pruning_between_trainings_begins_another_one(tmp_path):
    model = prune(chain().train(), 0.3)
    prune(model, 0.5)  # before any training
    kd.fit(kd.Supervised(model), blobs(), folder=tmp_path, **OPTIONS)
    kd.fit(kd.Supervised(prune(chain(), 0.5)), blobs(), folder=tmp_path, **OPTIONS)  # the same masks: it is done
    prune(model, 0.6)
    with pytest.raises(ValueError, match=r"the checkpoint in .* is of another training"):
        kd.fit(kd.Supervised(model), blobs(), folder=tmp_path, **OPTIONS)
    assert sparsity(model) == pytest.approx(0.6, abs=1e-3)


class Gradual(kd.Supervised):
    """Prunes a little more after each step; may fail in one."""

    _fails_at = -1

    def after_step(self) -> None:
        if self.step == self._fails_at:
            raise OSError("no more power")
        prune(self.learner, kd.compress.cubic(self.step, 0, 10, 0.0, 0.8))


def test_pruning_while_training_resumes_exactly(tmp_path):
    def trained(folder, fails_at=-1):
        objective = Gradual(prune(chain(), 0.0))
        objective._fails_at = fails_at
        kd.fit(objective, blobs(), folder=folder, checkpoint_every=2, **OPTIONS)
        return objective.learner.state_dict()

    whole = trained(tmp_path / "whole")
    with pytest.raises(OSError, match="no more power"):
        trained(tmp_path / "cut", fails_at=7)
    cut = trained(tmp_path / "cut")
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []

    same = Gradual(prune(chain(), 0.0))  # goes on with the very model whose masks have changed on the way
    same._fails_at = 7
    with pytest.raises(OSError, match="no more power"):
        kd.fit(same, blobs(), folder=tmp_path / "same", checkpoint_every=2, **OPTIONS)
    same._fails_at = -1
    kd.fit(same, blobs(), folder=tmp_path / "same", checkpoint_every=2, **OPTIONS)
    assert [name for name in whole if not torch.equal(whole[name], same.learner.state_dict()[name])] == []
    kept = [value for name, value in whole.items() if name.endswith("kept")]
    count = sum(value.numel() for value in kept)
    assert sum(int(value.sum()) for value in kept) == count - round(0.8 * count)


def test_baking_keeps_the_outputs_and_gives_the_plain_network_back():
    plain, model = chain(), prune(chain(), 0.5)
    expected, share = model(images()), sparsity(model)
    assert bake(model) is model
    assert torch.equal(model(images()), expected)
    assert list(model.state_dict())
    assert set(model.state_dict()) == set(plain.state_dict())
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert sparsity(model) == share
    assert masks_of(model) == {}


def test_baking_a_copy_leaves_the_model_masked_and_keeps_its_parameters():
    model = prune(chain(), 0.5)
    expected, copied = model(images()), copy.deepcopy(model)
    weight = copied[0][0].parametrizations.weight.original
    bake(copied)
    assert copied[0][0].weight is weight
    assert list(copied.state_dict()) == list(chain().state_dict())
    assert torch.equal(model(images()), expected)
    assert len(masks_of(model)) == 3


def test_other_parametrizations_are_named():
    model = chain()
    nn.utils.parametrizations.weight_norm(model[4])
    with pytest.raises(ValueError, match="the weight of layer '4' is computed from several parameters"):
        prune(model, 0.5)
    for model, refused in ((chain(), lambda net: prune(net, 0.5)), (prune(chain(), 0.5), bake)):
        nn.utils.parametrize.register_parametrization(model[4], "weight", nn.Identity())
        before = masks_of(model).keys()
        with pytest.raises(ValueError, match=r"layer '4' has parametrizations beside a mask \(weight\)"):
            refused(model)
        assert masks_of(model).keys() == before


def test_another_parametrization_is_no_mask():
    """It is not counted as one, and nobody is told to bake it."""
    model = chain()
    nn.utils.parametrizations.weight_norm(model[4])
    assert masks_of(model) == {}
    require_unmasked(model, "saved")


def test_masks_put_on_any_layer_count_where_none_is_kept():
    model = put_masks(chain(), {"6": torch.zeros(3, 5, dtype=torch.bool)})
    assert sparsity(model) == 0
    assert sparsity(model, keep=()) == 15 / (54 + 432 + 40 + 15)


def test_a_baked_network_is_saved_and_a_masked_one_is_refused(tmp_path):
    model = prune(seeded(lambda: kd.models.small_cnn(3, width=4)), 0.5)
    with pytest.raises(ValueError, match=r"'block1.0' has parametrizations, .* be saved; kd.compress.bake\(model\)"):
        kd.models.save(model, tmp_path)
    kd.models.save(bake(model), tmp_path)
    assert sparsity(kd.models.load(tmp_path)) == sparsity(model)


def test_the_head_is_kept_by_whatever_name():
    model = nn.Sequential()
    model.add_module("body", nn.Linear(4, 4))
    model.add_module("fc", nn.Linear(4, 2))
    assert list(masks_of(prune(copy.deepcopy(model), 0.5))) == ["body"]
    assert list(masks_of(prune(model, 0.5, keep=()))) == ["body", "fc"]


def test_a_layer_that_would_be_empty_is_named_with_the_largest_ratio_possible():
    model = chain()
    model[4].weight.data.mul_(1e-6)  # ranked together, this layer goes first
    with pytest.raises(
        ValueError, match=r"leave nothing of '4'; the largest ratio possible here is (0\.\d+)"
    ) as caught:
        prune(copy.deepcopy(model), 0.5)
    largest = float(str(caught.value).rsplit(" ", 1)[1])
    assert masks_of(prune(copy.deepcopy(model), largest))["4"].any()
    with pytest.raises(ValueError, match="leave nothing of '4'"):
        prune(copy.deepcopy(model), largest + 0.005)
    assert masks_of(prune(model, 0.5, scope="local"))["4"].any()


def test_a_refused_pruning_changes_nothing():
    model = chain()
    with pytest.raises(ValueError, match="leave nothing"):
        prune(model, 0.999, scope="local")
    assert masks_of(model) == {}


def test_errors_name_the_argument():
    for ratio in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\)"):
            prune(chain(), ratio)
    with pytest.raises(ValueError, match="scope='globl' is not known; did you mean 'global'"):
        prune(chain(), 0.5, scope="globl")
    with pytest.raises(ValueError, match="keep='tail' is not in Sequential"):
        prune(chain(), 0.5, keep=("tail",))
    with pytest.raises(ValueError, match=r"scores has none for the layer '0.0'"):
        prune(chain(), 0.5, scores={})
    with pytest.raises(ValueError, match=r"scores of '0.0' must have the shape of its weights, \(6, 1, 3, 3\)"):
        prune(chain(), 0.5, scores=lambda weight: weight.flatten())
    with pytest.raises(ValueError, match=r"scores of '0.0' must be finite"):
        prune(chain(), 0.5, scores=lambda weight: weight / 0)
    with pytest.raises(ValueError, match="masks: 'a' is no convolution"):
        put_masks(chain(), {"a": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"masks\['4'\] must be bool of shape \(5, 8\); got torch.float32"):
        put_masks(chain(), {"4": torch.ones(5, 8)})
    with pytest.raises(ValueError, match="no convolution or linear layer beside those kept"):
        prune(nn.Sequential(nn.Linear(2, 2)), 0.5)
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="'0' and '1' share one weight"):
        prune(tied, 0.5)
