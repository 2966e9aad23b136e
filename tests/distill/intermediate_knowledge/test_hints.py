"""Hints: a regressor from the student's features to the teacher's."""

import pytest
import torch

import kdutils as kd
from kdutils.distill import Hints, hint_loss
from tests.distill.intermediate_knowledge.common import first, made, maps, network, pictures, teacher, trained


def test_the_loss_is_the_mean_of_squares_in_a_loop():
    student, guide = maps(), maps(seed=1)
    wanted = [(s - t) ** 2 for s, t in zip(student.flatten().tolist(), guide.flatten().tolist(), strict=True)]
    assert hint_loss(student, guide).item() == pytest.approx(sum(wanted) / len(wanted))


def test_the_gradient_is_right_and_none_reaches_the_teacher():
    student, guide = maps(2).requires_grad_(), maps(2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: hint_loss(s, guide), student)
    hint_loss(student, guide).backward()
    assert guide.grad is None


def test_the_loss_is_zero_exactly_at_equality_and_grows_with_the_square():
    student, guide = maps(), maps(seed=1)
    assert hint_loss(guide, guide) == 0
    torch.testing.assert_close(hint_loss(guide + 2 * (student - guide), guide), 4 * hint_loss(student, guide))
    assert hint_loss(student.half(), guide.half()).dtype == torch.float32


def test_features_of_other_shapes_are_named():
    with pytest.raises(ValueError, match=r"student \(4, 5, 3, 3\), teacher \(4, 6, 3, 3\)"):
        hint_loss(maps(), maps(channels=6))


def test_the_regressor_is_a_convolution_of_one_place_and_is_trained():
    objective = made("Hints")
    (regress,) = objective.regressors
    assert (regress.kernel_size, regress.weight.shape) == ((1, 1), (16, 8, 1, 1))
    before = regress.weight.detach().clone()
    trained(objective)
    assert not torch.equal(regress.weight, before)


def test_a_regressor_that_learns_comes_closer_than_one_that_does_not():
    def error(learns: bool) -> float:
        objective = made("Hints", labels=0.0)
        objective.regressors.requires_grad_(learns)
        trained(objective, epochs=20)
        return objective(first())["hint"].item()

    assert error(True) < 0.8 * error(False)


def test_the_term_is_the_loss_of_what_the_regressor_makes_of_the_guided_layer():
    objective, batch = made("Hints", layers={"block1": "block2"}, weight=3.0).eval(), first()
    mine = objective.learner.block1(batch.images)
    its = objective.teacher.inner.block2(objective.teacher.inner.block1(batch.images))
    pooled = torch.nn.functional.adaptive_avg_pool2d(mine, 2)
    wanted = 3 * hint_loss(objective.regressors[0](pooled), its)
    torch.testing.assert_close(objective(batch)["hint"], wanted)


def test_in_the_first_stage_only_the_hint_trains_and_in_the_second_only_the_labels():
    data, objective = pictures(), made("Hints", first=0.5)
    head, regress = objective.learner.head, objective.regressors[0]
    seen = []

    def watch(*_: object) -> None:
        seen.append((head.weight.detach().clone(), regress.weight.detach().clone()))

    objective.register_forward_pre_hook(watch)
    kd.fit(objective, data, epochs=2, batch_size=12, learning_rate=1e-2, progress=False, device="cpu")
    heads, regressors = zip(*seen, strict=True)
    assert all(torch.equal(heads[0], weight) for weight in heads[:5])
    assert not torch.equal(heads[4], heads[-1])
    assert not torch.equal(regressors[0], regressors[4])
    assert all(torch.equal(regressors[4], weight) for weight in regressors[4:])
    with pytest.raises(ValueError, match=r"first must lie in \[0, 1\]"):
        Hints(network(), teacher(), data, first=1.5)
    with pytest.raises(ValueError, match=r"want both terms; got weight=0.0, labels=1.0"):
        Hints(network(), teacher(), data, first=0.5, weight=0.0)


def test_sequences_of_one_length_are_matched_token_by_token():
    class Tokens(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed, self.last = torch.nn.Linear(8, width), torch.nn.Linear(width, 3)

        def forward(self, x):
            return self.last(self.embed(x.squeeze(1)).mean(1))

    objective = Hints(Tokens(4), Tokens(6), pictures(), layers={"embed": "embed"})
    assert objective.shapes == [((8, 4), (8, 6))]
    assert objective(first())["hint"].isfinite()
