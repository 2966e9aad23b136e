"""Warping against references that do not use it: rotation by quarters, whole-pixel moves, PIL."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kdutils.data.draws import Draws
from kdutils.data.geometry import affine_matrices, elastic_displacement, interval, resize, uniform, warp


def matrices(rotation=0.0, scale=1.0, shear=0.0, shift=(0.0, 0.0), aspect=1.0, n=1):
    as_tensor = [torch.full((n,), float(value)) for value in (rotation, scale, shear)]
    return affine_matrices(*as_tensor, torch.tensor([shift]).expand(n, 2), aspect)


@pytest.fixture
def images():
    return torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_rotation_is_counterclockwise(images, quarters):
    turned = warp(images, matrices(rotation=90 * quarters, n=3))
    torch.testing.assert_close(turned, torch.rot90(images, quarters, dims=(2, 3)), atol=1e-4, rtol=0)


def test_a_positive_shift_moves_to_the_right_and_down(images):
    moved = warp(images, matrices(shift=(2 / 8, 1 / 8), n=3))
    torch.testing.assert_close(moved[:, :, 1:, 2:], images[:, :, :-1, :-2])
    assert moved[:, :, 0].abs().max() == 0
    assert moved[:, :, :, :2].abs().max() < 1e-6


def test_scale_above_one_grows_the_content():
    square = torch.zeros(1, 1, 16, 16)
    square[:, :, 6:10, 6:10] = 1
    assert warp(square, matrices(scale=2.0)).sum().item() == pytest.approx(4 * 16, rel=0.1)
    assert warp(square, matrices(scale=0.5)).sum().item() == pytest.approx(16 / 4, rel=0.1)


def test_positive_shear_leans_upright_strokes_to_the_right_by_its_angle():
    stroke = torch.zeros(1, 1, 33, 33)
    stroke[:, :, :, 16] = 1
    leaning = warp(stroke, matrices(shear=30.0))[0, 0]
    columns = (leaning * torch.arange(33)).sum(dim=1) / leaning.sum(dim=1)
    slope = (columns[6] - columns[26]) / 20  # to the right, per row upwards
    assert slope.item() == pytest.approx(math.tan(math.radians(30)), abs=0.02)


def test_rotation_keeps_right_angles_in_images_that_are_not_square():
    bar = torch.zeros(1, 1, 20, 40)
    bar[:, :, 9:11, 13:27] = 1  # 14 wide, 2 high
    upright = warp(bar, matrices(rotation=90.0, aspect=2.0))[0, 0]
    rows, columns = torch.nonzero(upright > 0.5, as_tuple=True)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (14, 2)


def test_padding_decides_what_lies_outside(images):
    outside = matrices(shift=(1.5, 0.0), n=3)
    assert warp(images, outside).abs().max() == 0
    assert warp(images, outside, padding="border").abs().min() > 0


def test_elastic_displacement_is_smooth_and_of_the_size_asked():
    field = elastic_displacement(torch.full((4000,), 0.05), 16, 16, Draws.of(torch.arange(4000), 0))
    assert field.shape == (4000, 16, 16, 2)
    corner = field[:, 0, 0]  # a node of the grid
    assert corner.std().item() == pytest.approx(0.05, rel=0.05)
    neighbors = (field[:, :, 1:] - field[:, :, :-1]).std() / field.std()
    assert neighbors < 0.5
    assert elastic_displacement(torch.zeros(2), 16, 16, Draws.of(torch.arange(2), 0)).abs().max() == 0


def test_a_displacement_looks_up_the_pixel_it_points_to(images):
    field = torch.zeros(3, 8, 8, 2)
    field[..., 0] = 2 / 8
    torch.testing.assert_close(warp(images, matrices(n=3), field)[..., :-2], images[..., 2:])


@given(st.floats(-50, 50), st.floats(0, 50))
def test_uniform_stays_within_its_bounds(low, width):
    drawn = uniform(Draws.of(torch.arange(50), 0), (low, low + width))
    assert drawn.min() >= low - 1e-4
    assert drawn.max() <= low + width + 1e-4


def test_one_number_is_a_range_about_nothing_and_a_pair_is_taken_as_it_is():
    assert interval("rotation", 10) == (-10, 10)
    assert interval("scale", 0.25, center=1.0, low=0.1) == (0.75, 1.25)
    assert interval("blur", 2.0, low=0.0) == (0, 2)
    assert interval("rotation", (30, 60)) == interval("rotation", [30, 60]) == (30, 60)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1.0, "angle must not be negative; got -1.0"),
        ((2, 1), "lowest first"),
        ((1, 2, 3), r"angle must be a number or a pair \(lowest, highest\); got \(1, 2, 3\)"),
        ([1], r"angle must be a number or a pair .*got \[1\]"),
        (math.inf, "finite"),
        (math.nan, "finite"),
    ],
)
def test_ranges_that_are_none_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        interval("angle", value)


def test_a_range_below_the_least_value_is_refused():
    with pytest.raises(ValueError, match=r"blur must be .*at least 0; got \(-1, 1\)"):
        interval("blur", (-1, 1), low=0.0)


@pytest.mark.parametrize("size", [5, (7, 3), 20])
def test_resizing_agrees_with_pil(size):
    image = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    height, width = (size, size) if isinstance(size, int) else size
    expected = Image.fromarray(image[0, 0].numpy()).resize((width, height), Image.Resampling.BILINEAR)
    torch.testing.assert_close(resize(image, size)[0, 0], torch.from_numpy(np.array(expected)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [2, 3, 14, 15, 40])
def test_resizing_keeps_each_image_within_its_own_range(size):
    images = torch.ones(2, 2, 16, 16)
    images[1] = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)) / 3
    resized = resize(images, size)
    assert torch.equal(resized[0], torch.ones(2, size, size))
    assert images[1].min() <= resized[1].min()
    assert resized[1].max() <= images[1].max()


def test_resizing_to_nothing_is_refused_and_to_the_same_size_changes_nothing():
    image = torch.rand(1, 1, 4, 4)
    assert resize(image, 4) is image
    with pytest.raises(ValueError, match="size must be at least 1 pixel a side; got 0"):
        resize(image, 0)
