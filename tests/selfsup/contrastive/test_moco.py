"""MoCo."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

import kdutils as kd
from kdutils.selfsup import MoCo, info_nce
from tests.selfsup.common import AUGMENT, backbone, blobs, pair, rotation, seeded, small, trained


def naive(queries, keys, negatives, temperature):
    """Equation 1 of the paper, one query after the other."""
    total = 0.0
    for q, k in zip(queries, keys, strict=True):

        def s(v, q=q):
            return math.exp(float(q @ v / q.norm() / v.norm()) / temperature)

        total -= math.log(s(k) / (s(k) + sum(s(n) for n in negatives)))
    return total / len(queries)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_it_is_the_formula_of_the_paper(temperature):
    (q, k), (negatives, _) = pair(), pair(11, seed=1)
    assert info_nce(q, k, negatives, temperature).item() == pytest.approx(
        naive(q, k, negatives, temperature), rel=1e-10
    )


def test_gradients_are_exact_and_go_to_the_queries_alone():
    q, k = (rows.requires_grad_() for rows in pair())
    negatives = pair(11, seed=1)[0].requires_grad_()
    assert gradcheck(lambda x: info_nce(x, k, negatives), (q,))
    info_nce(q, k, negatives).backward()
    assert k.grad is None
    assert negatives.grad is None


def test_equal_vectors_have_one_candidate_more_than_negatives_and_rotations_change_nothing():
    (q, k), (negatives, _), turn = pair(), pair(11, seed=1), rotation(4)
    assert info_nce(torch.ones(3, 2), torch.ones(3, 2), torch.ones(9, 2)).item() == pytest.approx(math.log(10))
    before = info_nce(q, k, negatives).item()
    assert info_nce(2 * q @ turn, k @ turn, negatives.flip(0) @ turn).item() == pytest.approx(before)


def test_what_does_not_fit_is_refused():
    q, k = pair()
    with pytest.raises(ValueError, match=r"negatives must be \(K, 4\), K at least 1; got \(0, 4\)"):
        info_nce(q, k, q[:0])
    with pytest.raises(ValueError, match=r"negatives must be \(K, 4\), K at least 1; got \(7, 3\)"):
        info_nce(q, k, q[:, :3])
    with pytest.raises(ValueError, match="queue must be at least 1; got 0"):
        MoCo(backbone(), AUGMENT, queue=0)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\]; got 2"):
        MoCo(backbone(), AUGMENT, momentum=2)


def made(**options) -> MoCo:
    return seeded(lambda: MoCo(backbone(), AUGMENT, **{**small("MoCo"), "queue": 40, **options}))


def test_the_queue_takes_the_keys_of_each_step_in_place_of_the_oldest():
    objective = made().train()
    start = objective.queue.clone()
    keys = []
    for step, batch in enumerate(blobs().batches(16, seed=0)):
        first = batch.view(AUGMENT, 2)
        keys.append(F.normalize(first.run(objective.keys), dim=1))
        objective(batch)
        objective.after_step()
        if step == 1:
            torch.testing.assert_close(objective.queue, torch.cat([*keys, start[32:]]))
        if step == 2:
            break
    torch.testing.assert_close(objective.queue, torch.cat([keys[2][8:], keys[0][8:], keys[1], keys[2][:8]]))
    assert int(objective.oldest) == 8


def test_a_batch_larger_than_the_queue_leaves_its_last_keys():
    objective = made(queue=5).train()
    objective(next(blobs().batches(16, seed=0)))
    objective.after_step()
    assert int(objective.oldest) == 0
    assert objective.queue.norm(dim=1).tolist() == pytest.approx([1] * 5)


def test_the_average_follows_and_with_another_momentum_another_backbone_comes_out():
    objective = made(momentum=1.0)
    before = objective.keys.inner.learner[0].weight.clone()
    one = trained(objective)
    assert torch.equal(before, objective.keys.inner.learner[0].weight)
    assert (trained(made(momentum=0.5)) - one).abs().max() > 1e-4


def test_a_training_that_is_taken_up_again_has_its_queue(tmp_path):
    options = {"epochs": 2, "batch_size": 16, "progress": False}
    whole, cut = made(), made()
    kd.fit(whole, blobs().unlabeled(), **options)

    class Stop(Exception):
        pass

    def stop(learner):
        raise Stop

    with pytest.raises(Stop):
        kd.fit(cut, blobs().unlabeled(), validate=stop, folder=tmp_path, checkpoint_every=3, **options)
    again = made()
    kd.fit(again, blobs().unlabeled(), folder=tmp_path, checkpoint_every=3, **options)
    assert torch.equal(again.queue, whole.queue)
