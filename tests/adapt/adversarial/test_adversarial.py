"""What all adversarial objectives are."""

import math

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.adapt import CDAN, DANN, domain_discriminator
from kdutils.data import Beside, Dataset
from kdutils.training.compare import compare
from tests.adapt.adversarial.common import OBJECTIVES, TERMS, toward_another_class
from tests.adapt.alignment.common import domain, pair, picture_net, trained, vector_net

each = pytest.mark.parametrize("name", OBJECTIVES)


def seeded(name: str, net: nn.Module, **options) -> kd.Objective:
    """The objective, whose discriminator has always the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return OBJECTIVES[name](net, **options)


@each
@pytest.mark.parametrize("picture", [False, True])
def test_vectors_and_pictures_train_all_terms(name, picture):
    objective = seeded(name, picture_net() if picture else vector_net())
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    history = kd.fit(objective, pair(picture), epochs=2, batch_size=16, learning_rate=1e-2, progress=False)
    assert set(history.steps) == TERMS[name]
    after = objective.state_dict()
    still = {key for key, value in before.items() if torch.equal(value, after[key])}
    frozen = {"mixing", "source_model"} | ({"learner", "labels"} if name == "ADDA" else set())
    assert {key.split(".")[0] for key in still} <= frozen


@each
def test_without_the_adversary_another_learner_comes_out(name):
    with_it, without = trained(seeded(name, vector_net())), trained(seeded(name, vector_net(), weight=0.0))
    assert (with_it - without).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["DANN", "CDAN", "CDAN, random"])
def test_without_the_adversary_the_learner_gets_the_gradient_of_the_labels_alone(name):
    objective = seeded(name, vector_net(), weight=0.0)
    objective.progress = 0.5
    terms = objective(next(pair().batches(16)))
    sum(terms.values()).backward()
    found = [parameter.grad.clone() for parameter in objective.learner.parameters()]
    plain = vector_net()
    kd.Supervised(plain)(next(pair().batches(16)))["labels"].backward()
    torch.testing.assert_close(found, [parameter.grad for parameter in plain.parameters()], atol=1e-7, rtol=1e-6)


@each
def test_the_labels_of_the_target_have_no_part_and_are_refused(name):
    target = domain(40, 1, 0.7)
    other = Dataset(target.inputs, target.labels.flip(0), target.classes, target.name)
    one, two = (trained(seeded(name, vector_net()), Beside(domain(), target=t.unlabeled())) for t in (target, other))
    assert torch.equal(one, two)
    with pytest.raises(ValueError, match=r"target has labels, which adaptation must not see; .*other\.unlabeled\(\)"):
        trained(seeded(name, vector_net()), Beside(domain(), target=target))
    with pytest.raises(ValueError, match=r"target is wanted.*Beside\(source, target=other\.unlabeled\(\)\)"):
        trained(seeded(name, vector_net()), domain())


@each
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_weight_is_a_finite_number_from_zero_on(name, value):
    with pytest.raises(ValueError, match=f"weight must be a finite number of at least 0; got {value}"):
        OBJECTIVES[name](vector_net(), weight=value)


@each
def test_half_precision_trains_nearly_the_same(name):
    half, whole = (trained(seeded(name, vector_net()), precision=kind) for kind in ("bf16", "fp32"))
    assert 0 < (half - whole).norm() < 0.05 * whole.norm()


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "ADDA"])  # each has a source of its own
def test_all_seeds_can_be_trained_at_once(name):
    learners: list[torch.Tensor] = []

    def measure(learner: nn.Module) -> float:
        learners.append(torch.cat([value.flatten().double() for value in learner.state_dict().values()]))
        return 0.0

    trial = kd.Trial(
        lambda seed: seeded(name, vector_net(seed)), pair(), measure, epochs=3, batch_size=20, learning_rate=1e-2
    )
    assert trial.reason((0, 1, 2)) is None
    for together in (False, True):
        found = compare({"m": trial}, (0, 1, 2), together=together, progress=False)
        assert found.apart == {}
    alone, together = torch.stack(learners[:3]), torch.stack(learners[3:])
    torch.testing.assert_close(together, alone, atol=5e-5, rtol=1e-3)
    assert (alone[0] - alone[1]).abs().max() > 1e-2


@pytest.mark.parametrize("make", [DANN, CDAN])
def test_what_reaches_the_learner_grows_with_the_progress_of_the_whole_training(make):
    def pull(progress: float, **options) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            objective = make(vector_net(norm=False), **options)
        objective.progress = progress
        objective(next(pair().batches(16)))["domains"].backward()
        return objective.learner[0].weight.grad

    full = pull(0.0, ramp=False)
    assert pull(0.0).abs().max() == 0
    torch.testing.assert_close(pull(0.1), full * (2 / (1 + math.exp(-1)) - 1))
    torch.testing.assert_close(pull(0.1, weight=3.0), 3 * full * (2 / (1 + math.exp(-1)) - 1))


@pytest.mark.parametrize("make", [DANN, CDAN])
def test_another_layer_wants_a_discriminator_that_fits_it(make):
    with pytest.raises(ValueError, match=r"discriminator must be given where features='0' names a layer"):
        make(vector_net(), "0")
    width = 8 if make is DANN else 24
    trained(make(vector_net(), "0", discriminator=domain_discriminator(width)))
    with pytest.raises(ValueError, match=rf"discriminator does not take rows of {width} numbers: .*9"):
        trained(make(vector_net(), "0", discriminator=domain_discriminator(9)))
    with pytest.raises(ValueError, match=r"one logit for each of 16 rows; got \(16, 2\)"):
        trained(make(vector_net(), "0", discriminator=nn.Linear(width, 2)))
    with pytest.raises(ValueError, match="features='body' is not in Sequential; it has 0, 1, 2, 3"):
        make(vector_net(), "body", discriminator=domain_discriminator(8))
    with pytest.raises(ValueError, match="features must be the path of one layer"):
        make(vector_net(), ["0"], discriminator=domain_discriminator(8))


@pytest.mark.parametrize("name", ["DANN", "CDAN"])
def test_a_shift_toward_another_class_is_undone(name):
    data, target = toward_another_class()

    def accuracy(weight: float) -> float:
        net = vector_net(norm=False)
        objective = seeded(name, net, weight=weight)
        trained(objective, Beside(data, target=target.unlabeled()), epochs=30, batch_size=60)
        return kd.measure.accuracy(net, target)

    assert accuracy(1.0) > accuracy(0.0) + 0.1
