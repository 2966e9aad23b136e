"""Accuracy over episodes."""

import pytest
import torch
from scipy import stats
from torch import nn

from kdutils.meta import MAML, EpisodeAccuracy, NearestCentroid, ProtoNet, few_shot_accuracy, sinusoids
from tests.meta.learning_to_learn.common import episodes, seeded


def flat() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Dropout(0.5)))


def test_each_value_is_the_share_of_right_answers_in_an_episode():
    data, method = episodes(shots=1, count=7, noise=2.0), NearestCentroid(nn.Flatten(), normalize=False)
    wanted = []
    for batch in data.batches(1, seed=3):
        known, right = batch["support"].inputs[0].flatten(1), 0
        for query, label in zip(batch.inputs[0].flatten(1), batch.labels[0], strict=True):
            right += int((known - query).square().sum(dim=1).argmin() == label)  # one shot: samples stand by class
        wanted.append(right / 12)
    found = few_shot_accuracy(method, data, batch_size=3, seed=3)
    torch.testing.assert_close(found.values, torch.tensor(wanted, dtype=torch.float64))
    assert 0.3 < found.mean < 1


def test_the_interval_is_students_over_episodes_and_says_so():
    accuracy = EpisodeAccuracy(torch.tensor([0.5, 0.75, 1.0, 0.75], dtype=torch.float64))
    low, high = stats.t.interval(0.95, 3, loc=0.75, scale=stats.sem(accuracy.values.numpy()))
    assert accuracy.halfwidth == pytest.approx((high - low) / 2)
    assert accuracy.mean == 0.75
    assert str(accuracy) == "75.0 % ± 32.5 points (95 % interval over 4 episodes, of one training)"


def test_the_same_seed_asks_the_same_episodes_and_another_others():
    method = ProtoNet(flat())
    first, again, other = (few_shot_accuracy(method, episodes(noise=2.0), seed=seed).values for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_method_runs_in_evaluation_mode_and_is_left_in_its_own():
    method, modes = MAML(flat(), rate=0.1), []
    method.learner.register_forward_hook(lambda module, *_: modes.append(module.training))
    few_shot_accuracy(method, episodes(count=4))
    assert set(modes) == {False}
    assert method.learner.training


def test_a_function_of_a_batch_is_a_method_too():
    data, method = episodes(count=6), MAML(flat().eval(), rate=0.1)
    found = few_shot_accuracy(lambda batch: method.logits(batch, steps=5), data)
    assert torch.equal(found.values, few_shot_accuracy(MAML(flat(), rate=0.1, steps=5), data).values)
    assert found.mean > few_shot_accuracy(method, data).mean + 0.1


def test_an_objective_measures_what_few_shot_accuracy_does():
    data, method = episodes(noise=2.0), MAML(flat(), rate=0.1)
    found = few_shot_accuracy(method, data)
    assert method.measure(method.learner, data) == {"accuracy": found.mean}
    assert 0.35 < found.mean < 0.95


def test_an_interval_of_one_episode_is_refused():
    with pytest.raises(ValueError, match="an interval wants at least 2 values; got 1"):
        str(EpisodeAccuracy(torch.tensor([0.5])))


@pytest.mark.parametrize("method", [ProtoNet(flat()), lambda batch: torch.zeros(*batch.labels.shape, 3)])
def test_a_device_that_is_not_there_is_named(method):
    with pytest.raises(ValueError, match="device='cuda:99' is not there; present here: "):
        few_shot_accuracy(method, episodes(), device="cuda:99")
    with pytest.raises(ValueError, match="device='gpu' is not known"):
        few_shot_accuracy(method, episodes(), device="gpu")


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="an interval wants at least 2 episodes; 'episodes of blobs' has 1"):
        few_shot_accuracy(ProtoNet(flat()), episodes(count=1))
    with pytest.raises(TypeError, match=r"method must have logits.*got Linear"):
        few_shot_accuracy(nn.Linear(2, 2), episodes())
    with pytest.raises(TypeError, match=r"method must have logits.*got str"):
        few_shot_accuracy("ProtoNet", episodes())
    with pytest.raises(ValueError, match=r"\(tasks, queries, ways\) for labels \(32, 12\); got \(2,\)"):
        few_shot_accuracy(lambda batch: torch.zeros(2), episodes())
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        few_shot_accuracy(ProtoNet(flat()), episodes(), batch_size=0)
    with pytest.raises(ValueError, match=r"labels must be class numbers; 'sinusoids' has torch.float32"):
        few_shot_accuracy(lambda batch: batch.inputs, sinusoids(4))
    with pytest.raises(ValueError, match=r"labels of the queries must lie in \[0, 1\] for 2 logits; got 0 to 2"):
        few_shot_accuracy(lambda batch: torch.zeros(*batch.labels.shape, 2), episodes())
