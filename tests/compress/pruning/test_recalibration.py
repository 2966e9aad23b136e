"""Recalibrated, a pruned network keeps its weights and masks, and is better for it."""

import torch

import kdutils as kd
from kdutils.compress import masks_of, prune, recalibrate, remove_channels
from tests.compress.pruning.common import blobs, chain


def test_weights_and_masks_stay():
    model = prune(chain(), 0.6)
    weights, masks = [p.clone() for p in model.parameters()], masks_of(model)
    assert recalibrate(model, blobs(40)) is model
    assert all(torch.equal(one, other) for one, other in zip(weights, model.parameters(), strict=True))
    assert all(torch.equal(mask, masks[name]) for name, mask in masks_of(model).items())


def test_a_network_that_lost_most_of_its_inputs_is_nearer_to_what_it_was():
    data = blobs(96)
    full = chain(width=16)
    kd.fit(kd.Supervised(full), data, epochs=6, batch_size=16, learning_rate=1e-2, progress=False, device="cpu")
    kept = full[0][1].weight.abs().topk(3).indices.tolist()
    smaller = remove_channels(full, {"0.0": kept})
    loss = [kd.measure.negative_log_likelihood(kd.measure.predict(smaller, data), data.labels)]
    recalibrate(smaller, data)
    loss += [kd.measure.negative_log_likelihood(kd.measure.predict(smaller, data), data.labels)]
    assert loss[1] < loss[0]
