"""The data that scikit-learn carries."""

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from kdutils.data import blended, digits


def test_digits_at_their_own_size_are_those_of_scikit_learn():
    data, source = digits(size=8), load_digits()
    assert torch.equal(data.images[:, 0] * 16, torch.from_numpy(source.images).float())
    assert data.labels.tolist() == source.target.tolist()
    assert data.classes == tuple("0123456789")


def test_digits_are_resized_within_the_range_of_pixels():
    data = digits()
    assert data.images.shape == (1797, 1, 16, 16)
    assert data.images.dtype == torch.float32
    assert data.images.min() >= 0
    assert 0.9 < data.images.max() <= 1
    # The middle of an image of even size is the same point before and after.
    small = digits(size=8).images
    torch.testing.assert_close(data.images.mean(), small.mean(), atol=5e-3, rtol=0)


def test_a_size_of_nothing_is_refused():
    with pytest.raises(ValueError, match="size must be at least 1"):
        digits(size=0)


@pytest.fixture(scope="module")
def some():
    return digits().subset(range(200))


def test_blending_with_nothing_shows_a_patch_of_a_photograph(some):
    empty = replace(some.subset(range(5)), inputs=torch.zeros(5, 1, 16, 16))
    photographs = [torch.tensor(photograph).permute(2, 0, 1) for photograph in load_sample_images().images]
    for patch in (blended(empty).images * 255).round().to(torch.uint8):
        windows = [photograph.unfold(1, 16, 1).unfold(2, 16, 1) for photograph in photographs]
        corner = [(w[:, :, :, 0, 0] == patch[:, 0, 0].view(3, 1, 1)).all(dim=0) for w in windows]
        places = [(w, *place) for w, found in zip(windows, corner, strict=True) for place in found.nonzero().tolist()]
        assert any(torch.equal(w[:, row, column], patch) for w, row, column in places)


def test_blending_is_the_distance_from_the_patch(some):
    patches = blended(replace(some, inputs=torch.zeros_like(some.images))).images
    torch.testing.assert_close(blended(some).images, (patches - some.images).abs())
    negative = blended(replace(some, inputs=torch.ones_like(some.images))).images
    torch.testing.assert_close(negative, 1 - patches)


def test_blended_images_have_three_channels_the_labels_of_their_base_and_other_patches_by_seed(some):
    mixed, state = blended(some, seed=1), torch.get_rng_state()
    assert mixed.shape == (3, 16, 16)
    assert torch.equal(mixed.labels, some.labels)
    assert mixed.name == "digits blended"
    assert torch.equal(mixed.images, blended(some, seed=1).images)
    assert not torch.equal(mixed.images, blended(some, seed=2).images)
    assert torch.equal(torch.get_rng_state(), state)
    assert blended(mixed).shape == (3, 16, 16)
    assert blended(some.unlabeled()).labels is None


def test_pixels_that_rounding_put_beside_the_range_are_blended_into_it(some):
    off = replace(some, inputs=1.0000006 * some.images - 3e-7)
    assert off.images.min() < 0
    assert off.images.max() > 1
    mixed = blended(off).images
    assert mixed.min() >= 0
    assert mixed.max() <= 1
    torch.testing.assert_close(mixed, blended(some).images, atol=1e-6, rtol=0)


def test_what_cannot_be_blended_is_refused(some):
    with pytest.raises(ValueError, match=r"'digits' has -\S+ to .*blend it first"):
        blended(some.standardized())
    with pytest.raises(ValueError, match="base must have 1 or 3 channels; 'digits' has 2"):
        blended(replace(some, inputs=some.images.expand(-1, 2, -1, -1)))
    with pytest.raises(ValueError, match="base must be at most 427×640 pixels; 'digits' is 428×4"):
        blended(replace(some.subset([0]), inputs=torch.zeros(1, 1, 428, 4)))
