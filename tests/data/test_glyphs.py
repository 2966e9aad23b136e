"""Rendered characters: the pictures, their variation, and what may not differ between runs."""

import string
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdutils.data import glyphs, scripts
from kdutils.data.draws import Draws
from kdutils.data.fonts import bitmaps_of
from kdutils.data.glyphs import FONT_DRAWS, FONTS, TEST_FONTS, TRAIN_FONTS
from kdutils.data.strokes import blurred, thicken

CRISP = {
    "rotation": 0,
    "scale": 0,
    "shear": 0,
    "shift": 0,
    "elastic": 0,
    "stroke": 0,
    "blur": 0,
    "contrast": 0,
    "noise": 0,
}


def ink_box(image):
    """Lowest and highest row and column with ink."""
    rows, columns = torch.nonzero(image, as_tuple=True)
    return rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()


def test_the_named_sets_have_their_sizes():
    assert glyphs("digits", 10).classes == tuple(string.digits)
    assert len(glyphs("letters", 52).classes) == 52
    assert set(glyphs("alphanumerics", 62).classes) == {*string.digits, *string.ascii_letters}
    assert glyphs("digits", 20, size=24).images.shape == (20, 1, 24, 24)


def test_a_seed_gives_the_same_glyphs_and_another_gives_others():
    first, again, other = glyphs("digits", 100, seed=3), glyphs("digits", 100, seed=3), glyphs("digits", 100, seed=4)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.columns["font"], again.columns["font"])
    assert not torch.equal(first.images, other.images)


def test_glyphs_neither_read_nor_change_the_global_random_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = glyphs("digits", 50)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(glyphs("digits", 50).images, first.images)


@settings(max_examples=15)
@given(st.integers(10, 300), st.integers(0, 100))
def test_classes_are_balanced_and_in_random_order(count, seed):
    labels = glyphs("digits", count, size=4, seed=seed).labels.tolist()
    numbers = Counter(labels)
    assert len(numbers) == 10
    assert max(numbers.values()) - min(numbers.values()) <= 1
    assert labels != sorted(labels)


def test_pixels_stay_within_zero_and_one_and_every_image_has_ink():
    data = glyphs(count=2000)
    assert data.images.dtype == torch.float32
    assert data.images.min() >= 0
    assert data.images.max() <= 1
    crisp = glyphs(count=2000, **CRISP)
    assert crisp.images.flatten(1).amax(dim=1).min() > 0.25


def test_held_out_fonts_share_no_font_and_no_picture_with_the_others():
    assert not {*TRAIN_FONTS} & {*TEST_FONTS}
    train, test = (glyphs(count=3000, fonts=part, **CRISP) for part in ("train", "test"))
    assert {FONTS[i] for i in train.columns["font"].tolist()} == {*TRAIN_FONTS}
    assert {FONTS[i] for i in test.columns["font"].tolist()} == {*TEST_FONTS}
    seen = {(label, image.numpy().tobytes()) for label, image in zip(train.labels.tolist(), train.images, strict=True)}
    new = {(label, image.numpy().tobytes()) for label, image in zip(test.labels.tolist(), test.images, strict=True)}
    assert not seen & new


def test_training_and_test_fonts_share_no_draws_at_one_seed():
    def drawn(fonts):
        """Labels and noise; the first row of an image holds nothing else, as no character reaches it."""
        data = glyphs("digits", 1000, fonts=fonts, **{**CRISP, "noise": (0.2, 0.2)})
        return data.labels, data.images[:, 0, 0].flatten()

    (labels, noise), *others = (drawn(fonts) for fonts in ("train", "test", "all", TEST_FONTS[:2], "cmr10"))
    for other_labels, other_noise in others:
        assert (labels == other_labels).float().mean() < 0.2  # a tenth by chance
        assert torch.corrcoef(torch.stack([noise, other_noise]))[0, 1].abs() < 0.05
    assert torch.equal(noise, drawn(TRAIN_FONTS)[1])


def test_labels_and_fonts_of_the_training_set_are_those_of_its_seed():
    data = glyphs("digits", 500, seed=3)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    assert torch.equal(data.labels, order % 10)
    font = (Draws.of(torch.arange(500), 3, FONT_DRAWS).uniform() * len(TRAIN_FONTS)).long()
    assert torch.equal(data.columns["font"], font)  # all of them have digits, and they stand first


def test_a_character_comes_only_in_fonts_that_have_it():
    georgian = glyphs("აბგ", 200, fonts="all")
    assert all("DejaVu" in FONTS[i] for i in georgian.columns["font"].tolist())
    assert len(set(georgian.columns["font"].tolist())) > 5


def test_fonts_can_be_named():
    one = glyphs("digits", 20, fonts="cmr10")
    assert set(one.columns["font"].tolist()) == {FONTS.index("cmr10")}
    two = glyphs("digits", 200, fonts=("cmr10", "STIXGeneral"))
    assert set(two.columns["font"].tolist()) == {FONTS.index("cmr10"), FONTS.index("STIXGeneral")}


def test_no_character_of_any_font_is_clipped_or_off_center():
    classes = (*string.digits, *string.ascii_letters, *"ЖЩგմא")
    bitmaps, present = bitmaps_of(classes, FONTS, 32)
    for image in bitmaps[present]:
        top, bottom, left, right = ink_box(image)
        assert min(top, left) >= 1
        assert max(bottom, right) <= 30
        assert abs(top + bottom - 31) <= 1
        assert abs(left + right - 31) <= 1


def test_capitals_of_every_font_are_equally_high():
    bitmaps, _ = bitmaps_of(("H",), FONTS, 64)
    heights = [bottom - top + 1 for top, bottom, _, _ in map(ink_box, bitmaps[:, 0])]
    assert max(heights) - min(heights) <= 2


def test_capitals_are_larger_than_their_small_letters_in_the_same_font():
    data = glyphs("CcOoSsVvWwXxZz", 1400, fonts="cmr10", size=32, **CRISP)
    area = {}
    for label, name in enumerate(data.classes):
        top, bottom, left, right = ink_box(data.images[data.labels == label][0, 0])
        area[name] = (bottom - top) * (right - left)
    for capital in "COSVWXZ":
        assert area[capital] > 1.3 * area[capital.lower()], capital


def test_different_characters_of_a_font_look_different():
    for font in FONTS:
        data = glyphs(count=62, fonts=font, size=32, **CRISP)
        assert len(torch.unique(data.images.flatten(1), dim=0)) == 62, font


VARIATIONS = {
    "rotation": 30.0,
    "scale": 0.3,
    "shear": 30.0,
    "shift": 0.15,
    "elastic": 0.08,
    "stroke": 1.0,
    "blur": 2.0,
    "contrast": 0.5,
    "noise": 0.3,
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_each_variation_acts_by_itself_and_differs_between_images(variation):
    crisp = glyphs("A", 40, fonts="DejaVuSans", **CRISP)
    assert len(torch.unique(crisp.images.flatten(1), dim=0)) == 1
    varied = glyphs("A", 40, fonts="DejaVuSans", **{**CRISP, variation: VARIATIONS[variation]})
    assert len(torch.unique(varied.images.flatten(1), dim=0)) > 35  # little blur is no blur
    assert (varied.images - crisp.images).abs().mean() > 0.02


def test_variation_has_the_units_that_it_says():
    def of_bars(**variation):
        """A vertical bar: its ink, and the position and spread of its columns."""
        images = glyphs("|", 4, size=32, fonts="DejaVuSans", **{**CRISP, **variation}).images[:, 0]
        ink = images.sum(dim=(1, 2))
        center = (images.sum(dim=1) * torch.arange(32)).sum(dim=1) / ink
        return ink, center, images

    ink, center, images = of_bars()
    _, moved, _ = of_bars(shift=(0.25, 0.25))
    torch.testing.assert_close(moved - center, torch.full((4,), 0.25 * 32), atol=0.1, rtol=0)
    larger, _, _ = of_bars(scale=(0.5, 0.5))
    torch.testing.assert_close(larger / ink, torch.full((4,), 0.25), atol=0.02, rtol=0)
    thicker, _, _ = of_bars(stroke=(1.0, 1.0))
    tall = (images[0].sum(dim=1) > 0.5).sum().item()
    torch.testing.assert_close(thicker - ink, torch.full((4,), 2.0 * tall), atol=0, rtol=0.2)
    thinner, _, _ = of_bars(stroke=(-0.5, -0.5))
    assert (thinner < ink - 0.8 * tall).all()
    dimmer, _, _ = of_bars(contrast=(0.5, 0.5))
    torch.testing.assert_close(dimmer / ink, torch.full((4,), 0.5))
    turned, _, _ = of_bars(rotation=(90, 90))
    _, _, lying = of_bars(rotation=(90, 90))
    assert (lying[0].sum(dim=1) > 0.5).sum() < (lying[0].sum(dim=0) > 0.5).sum()
    torch.testing.assert_close(turned, ink, atol=0, rtol=0.02)


def test_blur_is_a_gaussian_of_its_sigma():
    from scipy.ndimage import gaussian_filter

    image = torch.zeros(3, 1, 33, 33)
    image[:, :, 16, 16] = 1
    image[:, :, 12, 20] = 0.5
    sigma = torch.tensor([0.0, 0.8, 2.0])
    for soft, one, deviation in zip(blurred(image, sigma), image, sigma.tolist(), strict=True):
        expected = gaussian_filter(one[0].double().numpy(), deviation, truncate=8, mode="constant")
        torch.testing.assert_close(soft[0].double(), torch.from_numpy(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("amount", [-2, -1, 0, 1, 2])
def test_whole_pixels_of_thickening_are_the_morphology_of_scipy(amount):
    from scipy.ndimage import grey_dilation, grey_erosion

    image = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)).round(decimals=2)
    filtered = grey_dilation if amount > 0 else grey_erosion
    width = 2 * abs(amount) + 1
    expected = filtered(image[0, 0].numpy(), size=(width, width), mode="constant", cval=0.0)
    found = thicken(image, torch.tensor([float(amount)]), (-2.0, 2.0))
    assert torch.equal(found[0, 0], torch.from_numpy(expected))


def test_half_a_pixel_of_thickening_lies_halfway():
    image = torch.zeros(1, 1, 9, 9)
    image[..., 4, 4] = 1
    half, whole = (thicken(image, torch.tensor([amount]), (0.0, 1.0)) for amount in (0.5, 1.0))
    torch.testing.assert_close(half, (image + whole) / 2)


def test_scripts_are_disjoint_letters_and_over_a_thousand():
    listed = scripts()
    every = "".join(listed.values())
    assert len(every) == len(set(every)) > 1000
    assert {"Latin", "Greek", "Cyrillic", "Georgian", "Armenian", "Hebrew", "Arabic"} <= {*listed}
    assert all(len(members) >= 10 for members in listed.values())
    assert "ж" in listed["Cyrillic"]
    assert "Ω" in listed["Greek"]
    assert "é" not in every


def test_the_scripts_are_the_callers_own():
    scripts().clear()
    assert len(scripts()) > 5


def test_a_look_alike_is_listed_once_so_that_held_out_scripts_share_no_picture():
    listed = scripts()
    assert "A" in listed["Latin"]
    assert "\N{GREEK CAPITAL LETTER ALPHA}" not in listed["Greek"]
    assert "\N{CYRILLIC CAPITAL LETTER A}" not in listed["Cyrillic"]
    data = glyphs("unicode", len("".join(listed.values())), fonts="DejaVuSans", **CRISP)
    assert len(torch.unique(data.images.flatten(1), dim=0)) > 0.99 * len(data)


def test_every_unicode_class_exists_in_the_training_and_the_held_out_fonts():
    train, test = (glyphs("unicode", 2000, size=8, fonts=part) for part in ("train", "test"))
    assert train.classes == test.classes
    assert len(train.classes) > 1000
    assert len(set(test.labels.tolist())) == len(test.classes)


def test_a_part_of_a_chunk_comes_out_like_a_whole_one():
    data = glyphs("digits", 1030, size=8)
    assert len(data) == 1030
    assert data.images[1024:].flatten(1).amax(dim=1).min() > 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 61}, "count=61 is too small: one image for each of 62 characters"),
        ({"characters": ""}, "characters is empty.*digits, letters, alphanumerics, unicode"),
        ({"characters": "digit"}, "repeats 'i'.*a named set is one of digits"),
        ({"characters": ["ab", "c"]}, "single characters; got 'ab'"),
        ({"characters": "a漢"}, r"1 of 2 are in none of the fonts .*'漢' \(U\+6F22\)"),
        ({"characters": "a "}, r"' ' \(U\+0020\)"),
        ({"fonts": "tset"}, "did you mean 'test'"),
        ({"fonts": ("cmr10", "Arial")}, "fonts='Arial' is not known"),
        ({"fonts": ()}, "fonts is empty"),
        ({"size": 2}, "size must be at least 4 pixels; got 2"),
        ({"device": "cuda:99"}, "device='cuda:99' is not there"),
        ({"rotation": -5}, "rotation must not be negative"),
        ({"blur": (-1, 1)}, "blur must be .* at least 0"),
        ({"scale": 1.5}, "scale must be .* at least 0.01"),
        ({"noise": (0.2, 0.1)}, "lowest first"),
    ],
)
def test_what_cannot_be_rendered_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        glyphs(**options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_glyphs_are_drawn_and_reproducible_on_a_gpu():
    first, again = (glyphs("digits", 100, device="cuda", seed=1) for _ in range(2))
    assert first.device.type == "cuda"
    assert torch.equal(first.images, again.images)
