"""Augmentation: each sample by itself, driven by the generator alone."""

import pickle

import pytest
import torch

from kdutils.data import augment, digits

EVERY = {
    "shift_crop": augment.shift_crop(2),
    "flip": augment.flip(),
    "affine": augment.affine(elastic=0.05, shear=5.0),
    "noise": augment.noise(0.1),
    "chain": augment.chain(augment.flip(), augment.shift_crop(1), augment.noise(0.05)),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(64, 3, 8, 10, generator=seeded(9))


@pytest.mark.parametrize("name", EVERY)
def test_every_augmentation_keeps_the_shape_follows_the_generator_and_leaves_its_input_alone(name, images):
    change, original, state = EVERY[name], images.clone(), torch.get_rng_state()
    changed = change(images, seeded(1))
    assert changed.shape == images.shape
    assert torch.equal(changed, change(images, seeded(1)))
    assert not torch.equal(changed, change(images, seeded(2)))
    assert torch.equal(images, original)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", EVERY)
def test_every_augmentation_changes_each_sample_by_itself(name):
    same = torch.rand(1, 3, 8, 10, generator=seeded(9)).expand(64, -1, -1, -1)
    changed = EVERY[name](same, seeded())
    assert len(torch.unique(changed.flatten(1), dim=0)) > 1


@pytest.mark.parametrize("name", EVERY)
def test_every_augmentation_can_be_sent_to_a_worker_process(name, images):
    sent = pickle.loads(pickle.dumps(EVERY[name]))
    assert torch.equal(sent(images, seeded()), EVERY[name](images, seeded()))


def test_shift_crop_moves_each_image_by_whole_pixels_up_to_the_padding(images):
    cropped = augment.shift_crop(2)(images, seeded())
    padded = torch.nn.functional.pad(images, [2, 2, 2, 2])
    seen = set()
    for sample, picture in enumerate(cropped):
        windows = [
            (y, x) for y in range(5) for x in range(5) if torch.equal(padded[sample, :, y : y + 8, x : x + 10], picture)
        ]
        assert len(windows) == 1
        seen.update(windows)
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(5))


def test_flip_mirrors_the_share_asked_for(images):
    flipped = augment.flip(0.25)(images, seeded())
    mirrored = [torch.equal(new, old.flip(-1)) for new, old in zip(flipped, images, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(flipped, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 64
    assert 5 <= sum(mirrored) <= 30
    assert torch.equal(augment.flip(1.0)(images, seeded()), images.flip(-1))
    assert torch.equal(augment.flip(0.0)(images, seeded()), images)


def test_an_affine_of_nothing_changes_nothing(images):
    still = augment.affine(rotation=0, scale=0, shear=0, shift=0, elastic=0)
    torch.testing.assert_close(still(images, seeded()), images, atol=1e-5, rtol=0)


def test_each_part_of_an_affine_acts(images):
    off = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0, "elastic": 0.0}
    for part, amount in {"rotation": 20.0, "scale": 0.3, "shear": 20.0, "shift": 0.2, "elastic": 0.1}.items():
        changed = augment.affine(**{**off, part: amount})(images, seeded())
        assert (changed - images).abs().mean() > 0.02, part


def test_noise_has_the_deviation_asked_for():
    added = augment.noise(0.3)(torch.zeros(50, 1, 20, 20), seeded())
    assert added.std().item() == pytest.approx(0.3, rel=0.02)
    assert added.mean().item() == pytest.approx(0.0, abs=0.01)


def test_a_chain_is_one_after_the_other(images):
    first, second = augment.noise(0.1), augment.flip(1.0)
    expected = images.flip(-1) + 0.1 * torch.randn(images.shape, generator=seeded()).flip(-1)
    torch.testing.assert_close(augment.chain(first, second)(images, seeded()), expected)
    assert augment.chain()(images, seeded()) is images


def test_batches_are_augmented_per_sample_and_differ_between_epochs():
    data, draws = digits().subset(range(32)), seeded()
    first, second = (next(data.batches(32, generator=draws, augment=EVERY["affine"])).images for _ in range(2))
    assert first.shape == data.images.shape
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.shift_crop(-1), "padding must be at least 0 pixels; got -1"),
        (lambda: augment.flip(1.5), r"probability must lie in \[0, 1\]; got 1.5"),
        (lambda: augment.noise(-0.1), "std must not be negative; got -0.1"),
        (lambda: augment.affine(scale=(0.0, 1.0)), r"scale must be .*at least 0.01"),
        (lambda: augment.affine(padding="zero"), "did you mean 'zeros'"),
    ],
)
def test_bad_amounts_are_refused_when_the_augmentation_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()
