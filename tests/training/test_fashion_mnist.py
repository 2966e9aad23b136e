"""The loop on a real data set of full size, for a moment."""

from pathlib import Path

import pytest

import kdutils as kd

FOLDER = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.fullsize
@pytest.mark.skipif(not FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_one_pass_over_all_of_fashion_mnist_teaches_most_of_it():
    train = kd.data.fashion_mnist("train", download=False)
    test = kd.data.fashion_mnist("test", download=False)
    assert (len(train), len(test)) == (60_000, 10_000)
    model = kd.models.small_cnn(classes=10, width=8)
    kd.fit(
        kd.Supervised(model),
        train.standardized(),
        epochs=1,
        batch_size=256,
        learning_rate=5e-3,
        progress=False,
    )
    assert kd.measure.accuracy(model, test.standardized(like=train)) > 0.7
