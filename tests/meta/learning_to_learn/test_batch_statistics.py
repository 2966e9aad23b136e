"""Batch normalization task by task: the trap of vmap, and three policies."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from kdutils.meta import MAML, BatchStatistics, require_task_norms, with_batch_statistics
from kdutils.meta.learning_to_learn.batch_statistics import query_outputs
from tests.meta.learning_to_learn.common import convolving, explicit, gradients, tasks


def naive_maml(model: nn.Module, batch, first_order: bool = False) -> torch.Tensor:
    """What one writes first: vmap over tasks, without a look at the layers."""
    weights, support = dict(model.named_parameters()), batch["support"]

    def of(weights, x, y):
        return F.cross_entropy(functional_call(model, weights, (x,)), y)

    def task(x, y, asked, answers):
        found = grad(of)(weights, x, y)
        found = {name: value.detach() if first_order else value for name, value in found.items()}
        return of({name: value - 0.3 * found[name] for name, value in weights.items()}, asked, answers)

    return vmap(task)(support.inputs, support.labels, batch.inputs, batch.labels).mean()


def bias_gradient(loss: torch.Tensor, model: nn.Module) -> float:
    return torch.autograd.grad(loss, model[0].bias)[0].abs().max().item()


def named_gradients(loss: torch.Tensor, model: nn.Module) -> dict[str, torch.Tensor]:
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


def test_torchs_batch_norm_under_vmap_has_wrong_second_order_gradients_and_says_nothing():
    """A bias under BatchNorm changes nothing, so that its gradient is zero. If this fails, torch was mended."""
    model, batch = convolving(nn.BatchNorm2d(4, track_running_stats=False)), tasks(shape=(2, 4, 4))
    loop = explicit(model, batch, 0.3)
    torch.testing.assert_close(naive_maml(model, batch), loop, rtol=0, atol=1e-12)
    assert bias_gradient(loop, model) < 1e-15
    assert bias_gradient(naive_maml(model, batch), model) > 1e-4
    first, wanted = naive_maml(model, batch, True), explicit(model, batch, 0.3, first_order=True)
    torch.testing.assert_close(gradients(first, model), gradients(wanted, model), rtol=0, atol=1e-12)


def test_torchs_instance_norm_with_weights_has_the_same_fault_and_without_them_has_it_not():
    batch, apart = tasks(shape=(2, 4, 4)), {}
    for affine in (True, False):
        model = convolving(nn.InstanceNorm2d(4, affine=affine))
        loop = gradients(explicit(model, batch, 0.3), model)
        apart[affine] = (gradients(naive_maml(model, batch), model) - loop).abs().max()
    assert apart[True] > 1e-4
    assert apart[False] < 1e-12


@pytest.mark.parametrize("path", ["vmap", "loop"])
def test_ours_is_exact(path):
    torchs = convolving(nn.BatchNorm2d(4, track_running_stats=False))
    ours, batch = with_batch_statistics(torchs), tasks(shape=(2, 4, 4))
    term, wanted = MAML(ours, rate=0.3, path=path)(batch)["queries"], explicit(torchs, batch, 0.3)
    torch.testing.assert_close(term, wanted, rtol=0, atol=1e-12)
    assert bias_gradient(MAML(ours, rate=0.3, path=path)(batch)["queries"], ours) < 1e-15
    found, expected = (named_gradients(*pair) for pair in ((term, ours), (wanted, torchs)))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(7, 4), (7, 4, 5), (7, 4, 3, 3)])
def test_transductive_is_torchs_batch_norm_in_training_and_frozen_that_in_evaluation(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    layer = kind(4, eps=1e-3).double()
    for number, value in enumerate((layer.weight, layer.bias, layer.running_mean, layer.running_var)):
        value.data.copy_(torch.arange(1.0, 5.0) / (number + 1))
    frozen, own = with_batch_statistics(layer, "frozen"), with_batch_statistics(layer)
    torch.testing.assert_close(frozen(x), layer.eval()(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(own(x), layer.train()(x), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(own, x.requires_grad_())
    assert torch.autograd.gradgradcheck(own, x)


def outputs(policy: str, queries: torch.Tensor) -> torch.Tensor:
    model = with_batch_statistics(convolving(nn.BatchNorm2d(4)), policy)
    return query_outputs(model, dict(model.named_parameters()), tasks(shape=(2, 4, 4))["support"].inputs[0], queries)


def test_only_with_transductive_statistics_an_answer_depends_on_what_else_is_asked():
    queries = tasks(shape=(2, 4, 4)).inputs[0]
    for policy in ("transductive", "support", "frozen"):
        apart = (outputs(policy, queries)[:2] - outputs(policy, queries[:2])).abs().max()
        assert (apart > 1e-2) == (policy == "transductive"), policy
        assert policy == "transductive" or apart < 1e-12


def test_under_support_the_queries_are_normalized_by_the_support():
    layer, (support, queries) = BatchStatistics(4, "support").double(), torch.randn(2, 6, 4).double()
    found = query_outputs(layer, dict(layer.named_parameters()), support, queries)
    wanted = (queries - support.mean(0)) / (support.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(found, wanted)
    assert layer.known is None


def test_the_policies_train_differently_and_each_path_alike():
    batch, found = tasks(shape=(2, 4, 4)), {}
    for policy in ("transductive", "support", "frozen"):
        model = with_batch_statistics(convolving(nn.BatchNorm2d(4)), policy)
        both = [gradients(MAML(model, rate=0.3, path=path)(batch)["queries"], model) for path in ("vmap", "loop")]
        torch.testing.assert_close(*both, rtol=0, atol=1e-12)
        found[policy] = both[0]
    assert (found["support"] - found["transductive"]).abs().max() > 1e-3
    assert (found["support"] - found["frozen"]).abs().max() > 1e-3


def test_the_model_that_was_copied_stays_as_it_was():
    model = convolving(nn.BatchNorm2d(4))
    copy = with_batch_statistics(model, "frozen")
    assert isinstance(model[1], nn.BatchNorm2d)
    assert copy[1].mean.data_ptr() != model[1].running_mean.data_ptr()
    assert "policy='frozen'" in repr(copy)
    bare = with_batch_statistics(nn.BatchNorm1d(4, affine=False).double(), "frozen")
    assert bare(torch.zeros(3, 4).double()).dtype == torch.float64
    assert not bare.weight.requires_grad


@pytest.mark.parametrize(
    ("layer", "has", "use"),
    [
        (nn.BatchNorm2d(4), "running statistics", "with_batch_statistics"),
        (nn.BatchNorm2d(4, affine=False), "running statistics", "with_batch_statistics"),
        (nn.SyncBatchNorm(4), "running statistics", "with_batch_statistics"),
        (nn.BatchNorm2d(4, track_running_stats=False), "γ and β", "with_batch_statistics"),
        (
            nn.InstanceNorm2d(4, track_running_stats=True),
            "running statistics",
            "affine=False and track_running_stats=F",
        ),
        (nn.InstanceNorm2d(4, affine=True), "γ and β", "affine=False and track_running_stats=F"),
    ],
)
def test_layers_that_vmap_gets_wrong_are_named_with_what_they_have_and_what_to_use(layer, has, use):
    with pytest.raises(ValueError, match=rf"layer '1' \({type(layer).__name__}\) has {has}.*norm='group'.*{use}"):
        require_task_norms(nn.Sequential(nn.Conv2d(2, 4, 3), layer))


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), BatchStatistics(4)])
def test_layers_that_pass_are_exact(norm):
    model, batch = convolving(norm), tasks(shape=(2, 4, 4))
    require_task_norms(model)
    both = [gradients(MAML(model, rate=0.3, path=path)(batch)["queries"], model) for path in ("vmap", "loop")]
    torch.testing.assert_close(*both, rtol=0, atol=1e-12)


def test_what_cannot_be_done_is_named():
    with pytest.raises(ValueError, match=r"policy='query' is not known.*frozen, support, transductive"):
        BatchStatistics(4, "query")
    with pytest.raises(ValueError, match="policy='none' is not known"):
        with_batch_statistics(nn.BatchNorm1d(4), "none")
    with pytest.raises(ValueError, match="model must have a BatchNorm to be replaced; Linear has none"):
        with_batch_statistics(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="policy='frozen' wants running statistics; layer '0' keeps none"):
        with_batch_statistics(nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)), "frozen")
