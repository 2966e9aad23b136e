import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdutils import models
from kdutils.measure import parameters


@given(
    classes=st.integers(1, 12),
    channels=st.integers(1, 4),
    width=st.integers(1, 9),
    depth=st.integers(1, 5),
    norm=st.sampled_from(["batch", "group", "none"]),
    size=st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
def test_any_small_cnn_takes_images_of_any_size(classes, channels, width, depth, norm, size):
    model = models.small_cnn(classes, channels, width, depth, norm).eval()
    assert model(torch.rand(2, channels, size, size + 3)).shape == (2, classes)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6])
def test_a_small_cnn_halves_the_image_first_and_last(depth):
    blocks = [part[0] for name, part in models.small_cnn(depth=depth).named_children() if name.startswith("block")]
    strides = [block.stride[0] for block in blocks]
    assert strides == {1: [2], 2: [2, 2], 3: [2, 2, 2], 4: [2, 1, 2, 2], 6: [2, 1, 1, 1, 2, 2]}[depth]
    assert [block.out_channels for block in blocks] == [16 * 2**i for i in range(depth)]


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm), ("none", nn.Identity)])
def test_the_norm_asked_for_follows_each_convolution(norm, kind):
    model = models.small_cnn(norm=norm)
    for block in (model.block1, model.block2, model.block3):
        assert isinstance(block[1], kind)
        assert (block[0].bias is not None) == (norm == "none")  # a norm has its own shift


def test_group_norm_divides_odd_widths():
    assert models.small_cnn(width=6, norm="group").block1[1].num_groups == 2
    assert models.small_cnn(width=7, norm="group").block1[1].num_groups == 1


def test_an_unknown_norm_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="norm='bacth' is not known; did you mean 'batch'"):
        models.small_cnn(norm="bacth")


def test_the_counts_that_the_book_relies_on():
    cnn = 12 * 9 + 12 * 24 * 9 + 24 * 48 * 9 + 2 * (12 + 24 + 48) + 49 * 62
    assert parameters(models.small_cnn(62, width=12)) == cnn
    assert parameters(models.mlp(62)) == 257 * 64 + 65 * 62


def test_an_mlp_has_the_layers_asked_for():
    model = models.mlp(classes=3, inputs=8, hidden=(5, 4), dropout=0.25)
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [
        (8, 5),
        (5, 4),
        (4, 3),
    ]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]
    assert model(torch.rand(6, 2, 2, 2)).shape == (6, 3)


def test_an_mlp_without_hidden_layers_is_a_linear_classifier():
    model = models.mlp(classes=3, inputs=4, hidden=())
    images = torch.rand(5, 1, 2, 2)
    torch.testing.assert_close(model(images), images.flatten(1) @ model.head.weight.T + model.head.bias)


def test_images_with_another_number_of_pixels_are_named():
    with pytest.raises(ValueError, match=r"256 numbers each \(inputs=256\); got \(2, 1, 28, 28\)"):
        models.mlp()(torch.rand(2, 1, 28, 28))


def test_a_hidden_width_of_zero_is_named():
    with pytest.raises(ValueError, match=r"hidden\[1\] must be a whole number of at least 1; got 0"):
        models.mlp(hidden=(8, 0))


def test_a_small_cnn_learns_what_is_learnable(blobs):
    data = blobs(n=96, noise=0.1)
    torch.manual_seed(0)
    model = models.small_cnn(classes=3, width=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.images), data.labels).backward()
        optimizer.step()
    assert (model(data.images).argmax(1) == data.labels).float().mean() > 0.95
