"""Augmentation: each sample by itself, by random numbers of its own."""

import pickle

import pytest
import torch

from kdutils.data import Dataset, augment, digits
from kdutils.data.draws import Draws

EVERY = {
    "shift_crop": augment.shift_crop(2),
    "flip": augment.flip(),
    "affine": augment.affine(elastic=0.05, shear=5.0),
    "noise": augment.noise(0.1),
    "color": augment.color(),
    "chain": augment.chain(augment.flip(), augment.shift_crop(1), augment.noise(0.05)),
    "chain of views": augment.chain(augment.flip(), augment.shift_crop(1)),
    "few views": augment.few_views(augment.chain(augment.flip(), augment.shift_crop(2)), 7),
}


def seeded(seed=0, n=64):
    return Draws.of(torch.arange(n), seed)


@pytest.fixture
def images():
    return seeded(9).uniform(3, 8, 10)


@pytest.mark.parametrize("name", EVERY)
def test_every_augmentation_keeps_the_shape_follows_its_draws_and_leaves_its_input_alone(name, images):
    change, original, state = EVERY[name], images.clone(), torch.get_rng_state()
    changed = change(images, seeded(1))
    assert changed.shape == images.shape
    assert torch.equal(changed, change(images, seeded(1)))
    assert not torch.equal(changed, change(images, seeded(2)))
    assert torch.equal(images, original)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", EVERY)
def test_every_augmentation_changes_each_sample_by_itself(name):
    same = seeded(9, 1).uniform(3, 8, 10).expand(64, -1, -1, -1)
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
    added = augment.noise(0.3)(torch.zeros(64, 1, 20, 20), seeded())
    assert added.std().item() == pytest.approx(0.3, rel=0.02)
    assert added.mean().item() == pytest.approx(0.0, abs=0.01)


def test_a_chain_is_one_after_the_other(images):
    first, second = augment.noise(0.1), augment.flip(1.0)
    expected = images.flip(-1) + 0.1 * seeded().normal(3, 8, 10).flip(-1)
    torch.testing.assert_close(augment.chain(first, second)(images, seeded()), expected)
    assert augment.chain()(images, seeded()) is images


def test_batches_are_augmented_per_sample_and_differ_between_epochs():
    data = digits().subset(range(32))
    first, second = (next(data.batches(32, epoch=epoch, augment=EVERY["affine"])).images for epoch in range(2))
    assert first.shape == data.images.shape
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.shift_crop(-1), "padding must be at least 0 pixels; got -1"),
        (lambda: augment.flip(1.5), r"probability must lie in \[0, 1\]; got 1.5"),
        (lambda: augment.noise(-0.1), "std must be a finite number of at least 0; got -0.1"),
        (lambda: augment.affine(scale=(0.0, 1.0)), r"scale must be .*at least 0.01"),
        (lambda: augment.color(contrast=-1), "contrast must not be negative; got -1"),
        (lambda: augment.mixup(0), "alpha must be a positive finite number; got 0"),
        (lambda: augment.few_views(augment.flip(), 0), "count must be at least 1; got 0"),
        (lambda: augment.affine(padding="zero"), "did you mean 'zeros'"),
    ],
)
def test_bad_amounts_are_refused_when_the_augmentation_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


VIEWS = {name: change for name, change in EVERY.items() if isinstance(change, augment.Views)}


@pytest.mark.parametrize("name", EVERY)
def test_what_is_drawn_for_a_sample_depends_on_no_other_sample(name, images):
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))[:20]
    alone = EVERY[name](images[order], Draws.of(order, 3))
    torch.testing.assert_close(alone, EVERY[name](images, Draws.of(torch.arange(64), 3))[order])


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_fixed_by_its_number(name, images):
    views, index = VIEWS[name], torch.arange(64)
    chosen = views.choose(seeded())
    assert int(chosen.min()) >= 0
    assert int(chosen.max()) < views.count
    assert torch.equal(views.show(images, chosen, index), views(images, seeded()))


def test_views_are_flips_and_crops_and_what_is_made_of_them_and_nothing_else():
    assert set(VIEWS) == {"flip", "shift_crop", "chain of views", "few views"}
    assert augment.chain(augment.flip(), augment.shift_crop(4)).count == 162
    with pytest.raises(TypeError, match="outcomes can be numbered"):
        augment.few_views(augment.noise(), 3)


def test_a_chain_of_views_shows_every_pair_of_its_parts(images):
    views = augment.chain(augment.flip(), augment.shift_crop(1))
    one = images[:1].expand(18, -1, -1, -1)
    shown = views.show(one, torch.arange(18), torch.zeros(18, dtype=torch.long))
    assert len(torch.unique(shown.flatten(1), dim=0)) == 18


def test_few_views_are_the_same_few_in_every_epoch(images):
    views = augment.few_views(augment.chain(augment.flip(), augment.shift_crop(2)), 3)
    seen = [set() for _ in range(64)]
    for epoch in range(40):
        for sample, picture in enumerate(views(images, Draws.of(torch.arange(64), 0, epoch))):
            seen[sample].add(picture.numpy().tobytes())
    assert max(map(len, seen)) == 3
    assert sum(map(len, seen)) > 150


def test_color_acts_on_each_of_its_parts(images):
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    torch.testing.assert_close(augment.color(**off)(images, seeded()), images)
    for part in off:
        assert (augment.color(**{**off, part: 0.5})(images, seeded()) - images).abs().mean() > 0.02, part
    gray = images.mean(dim=1, keepdim=True)
    torch.testing.assert_close(augment.color(0, 0, 0.5)(gray, seeded()), gray)


@pytest.mark.parametrize("mix", [augment.mixup(1.0), augment.cutmix()], ids=["mixup", "cutmix"])
def test_mixing_takes_the_share_it_says_from_its_own_image(mix):
    own, other = torch.ones(64, 1, 8, 10), torch.zeros(64, 1, 8, 10)
    mixed, share = mix(own, other, seeded())
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), share)
    assert share.min() < 0.3
    assert share.max() > 0.7


def test_the_share_of_mixup_follows_its_beta_distribution():
    share = augment.mixup(0.4)(torch.zeros(20000, 1, 1, 1), torch.zeros(20000, 1, 1, 1), seeded(n=20000))[1]
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.03)


def test_a_mixed_batch_carries_both_labels_of_its_pairs():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 4)
    data = Dataset(images, torch.arange(6), tuple("abcdef"))
    (batch,) = data.batches(6, mix=augment.mixup(1.0))
    assert batch.other_labels.tolist() == [1, 0, 3, 2, 5, 4]
    expected = batch.share * batch.labels + (1 - batch.share) * batch.other_labels
    torch.testing.assert_close(batch.images[:, 0, 0, 0], expected)
