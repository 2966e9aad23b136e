"""What all objectives share that align a labeled source and an unlabeled target."""

import math

import pytest
import torch
from torch import nn
from torch.func import vmap

import kdutils as kd
from kdutils.adapt._aligned import seed_by_seed, unlabeled_target
from kdutils.data import Beside, Dataset
from kdutils.models.paths import pooled
from kdutils.training.compare import compare
from tests.adapt.alignment.common import NO_POT, NOTHING, OBJECTIVES, domain, pair, picture_net, trained, vector_net

each = pytest.mark.parametrize("name", [pytest.param(n, marks=[NO_POT] if n == "JDOT" else []) for n in OBJECTIVES])


def first(data: kd.data.Source, size: int = 16) -> kd.Batch:
    return next(data.batches(size))


@each
@pytest.mark.parametrize("picture", [False, True])
def test_vectors_and_pictures_train_both_terms(name, picture):
    objective = OBJECTIVES[name](picture_net() if picture else vector_net())
    history = kd.fit(objective, pair(picture), epochs=4, batch_size=16, learning_rate=1e-2, progress=False)
    assert set(history.steps) == {"labels", "alignment"}
    assert history.steps["labels"][-1] < history.steps["labels"][0]
    assert len(set(history.steps["alignment"])) == len(history.steps["alignment"])


@each
def test_without_alignment_another_learner_comes_out(name):
    make = OBJECTIVES[name]
    with_it, without = trained(make(vector_net())), trained(make(vector_net(), **NOTHING[name]))
    assert (with_it - without).abs().max() > 1e-4


@each
def test_without_alignment_and_without_batch_norm_it_is_ordinary_training_on_the_source(name):
    without = trained(OBJECTIVES[name](vector_net(norm=False), **NOTHING[name]))
    torch.testing.assert_close(without, trained(kd.Supervised(vector_net(norm=False))), atol=1e-7, rtol=1e-6)


@each
def test_the_learner_runs_once_on_each_domain_or_once_on_both(name):
    sizes = []
    net = vector_net()
    net.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    OBJECTIVES[name](net)(first(pair()))
    OBJECTIVES[name](net, joined=True)(first(pair()))
    assert sizes == [16, 16, 32]


@each
def test_joined_the_statistics_are_those_of_both_domains_and_separate_ones_follow_in_turns(name):
    batch = first(pair())
    rows = [vector_net()[0](x) for x in (batch.inputs, batch["target"].inputs)]
    joined, separate = vector_net(), vector_net()
    OBJECTIVES[name](joined, joined=True)(first(pair()))
    OBJECTIVES[name](separate)(first(pair()))
    torch.testing.assert_close(joined[1].running_mean, 0.1 * torch.cat(rows).mean(0))
    torch.testing.assert_close(separate[1].running_mean, 0.09 * rows[0].mean(0) + 0.1 * rows[1].mean(0))


@each
def test_it_can_stand_beside_other_objectives_without_another_run(name):
    net, sizes = vector_net(), []
    net.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))

    class Sum(kd.Objective):
        def __init__(self):
            super().__init__()
            self.learner = net

        def forward(self, batch):
            return {"size": batch.run(net).square().mean()}

    terms = kd.Combined(OBJECTIVES[name](net), Sum())(first(pair()))
    assert set(terms) == {"labels", "alignment", "size"}
    assert sizes == [16, 16]


@each
def test_a_target_with_labels_is_refused(name):
    with pytest.raises(ValueError, match=r"target has labels, which adaptation must not see; .*other\.unlabeled\(\)"):
        trained(OBJECTIVES[name](vector_net()), Beside(domain(), target=domain(40, 1)))


@each
def test_no_target_is_refused(name):
    with pytest.raises(ValueError, match=r"target is wanted.*Beside\(source, target=other\.unlabeled\(\)\)"):
        trained(OBJECTIVES[name](vector_net()), domain())


@each
def test_the_labels_of_the_target_have_no_part(name):
    target = domain(40, 1, 0.7)
    other = Dataset(target.inputs, target.labels.flip(0), target.classes, target.name)
    one, two = (
        trained(OBJECTIVES[name](vector_net()), Beside(domain(), target=t.unlabeled())) for t in (target, other)
    )
    assert torch.equal(one, two)


@each
def test_other_classes_or_other_inputs_of_the_target_are_refused(name):
    objective = OBJECTIVES[name](vector_net())
    with pytest.raises(ValueError, match="same classes; got 3 in the source, 4 in the target"):
        trained(objective, Beside(domain(), target=domain(40, classes=4).unlabeled()))
    wide = Dataset(torch.randn(40, 13), name="wide")
    with pytest.raises(ValueError, match=r"samples of one kind; got \(12,\) in the source, \(13,\) in the target"):
        trained(objective, Beside(domain(), target=wide))
    with pytest.raises(ValueError, match=r"samples of one kind; got \(12,\) in the source, \(3, 2, 2\)"):
        trained(objective, Beside(domain(), target=domain(40, picture=True).unlabeled()))


@pytest.mark.parametrize("name", ["MMD", "CORAL"])
def test_one_sample_of_the_target_is_refused(name):
    with pytest.raises(ValueError, match=r"target.* must have at least 2 samples; got 1"):
        trained(OBJECTIVES[name](vector_net(norm=False)), Beside(domain(), target=domain(1).unlabeled()))


@each
def test_features_that_are_not_finite_are_refused(name):
    target = Dataset(domain(40).inputs.index_fill(1, torch.tensor([2]), math.nan), name="broken")
    with pytest.raises(ValueError, match=r"target.* must be finite numbers; got NaN or infinity"):
        trained(OBJECTIVES[name](vector_net()), Beside(domain(), target=target))


@each
def test_a_layer_that_is_not_there_is_refused_before_training_with_those_that_are(name):
    with pytest.raises(ValueError, match="features='body' is not in Sequential; it has 0, 1, 2, 3"):
        OBJECTIVES[name](vector_net(), "body")
    with pytest.raises(ValueError, match="no linear layer that could be its head"):
        OBJECTIVES[name](nn.Sequential(nn.Conv2d(1, 1, 1)))


@each
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_weight_is_a_finite_number_from_zero_on(name, value):
    for argument in NOTHING[name]:
        with pytest.raises(ValueError, match=f"{argument} must be a finite number of at least 0; got {value}"):
            OBJECTIVES[name](vector_net(), **{argument: value})
    OBJECTIVES[name](vector_net(), **NOTHING[name])


@each
def test_half_precision_trains_nearly_the_same(name):
    half, whole = (trained(OBJECTIVES[name](vector_net()), precision=kind) for kind in ("bf16", "fp32"))
    assert 0 < (half - whole).norm() < 0.02 * whole.norm()


@each
def test_all_seeds_can_be_trained_at_once(name):
    learners: list[torch.Tensor] = []

    def measure(learner: nn.Module) -> float:
        learners.append(torch.cat([value.flatten().double() for value in learner.state_dict().values()]))
        return 0.0

    trial = kd.Trial(
        lambda seed: OBJECTIVES[name](vector_net(seed)), pair(), measure, epochs=3, batch_size=20, learning_rate=1e-2
    )
    assert trial.reason((0, 1, 2)) is None
    for together in (False, True):
        found = compare({"m": trial}, (0, 1, 2), together=together, progress=False)
        assert found.apart == {}
    alone, together = torch.stack(learners[:3]), torch.stack(learners[3:])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert (alone[0] - alone[1]).abs().max() > 1e-2


def test_maps_and_tokens_become_means():
    maps = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(pooled(maps), maps.mean((2, 3)))
    tokens = torch.randn(2, 4, 3)
    torch.testing.assert_close(pooled(tokens), tokens.mean(1))
    rows = maps[:, :, 0, 0]
    assert pooled(rows) is rows


def test_a_function_that_looks_at_numbers_has_its_gradient_under_vmap():
    def looking(a: torch.Tensor, index: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sum() if a.sum() > 0 else a.square().sum() * index.sum()

    a = torch.tensor([[1.0, 2.0], [-3.0, 1.0]], requires_grad=True)
    b, index = torch.tensor([4.0, 5.0], requires_grad=True), torch.tensor([[1], [2]])
    values = vmap(lambda a, i: seed_by_seed(looking, a, i, b))(a, index)
    assert values.tolist() == [14.0, 20.0]
    (values * torch.tensor([1.0, 10.0])).sum().backward()
    assert a.grad.tolist() == [[4.0, 5.0], [-120.0, 40.0]]
    assert b.grad.tolist() == [1.0, 2.0]
    alone = seed_by_seed(looking, a[1], index[1], b)
    assert alone.item() == 20.0
    assert torch.autograd.grad(alone, a)[0].tolist() == [[0.0, 0.0], [-12.0, 4.0]]


def test_the_target_of_a_batch_is_given_back():
    batch = first(pair())
    assert unlabeled_target(batch) is batch["target"]
