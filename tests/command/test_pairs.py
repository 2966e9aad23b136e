"""Pairs times methods: each combination has a name, and a new pair or method is one new file."""

import shutil

import pytest

from kdutils.command import pairs, recipe

OLD = [
    "cifar10-resnet20",
    "cifar10-resnet20-soft-targets",
    "cifar10-resnet56",
    "cifar100-mobilenetv2",
    "cifar100-mobilenetv2-soft-targets",
    "cifar100-resnet110",
    "cifar100-resnet20",
    "cifar100-resnet20-soft-targets",
    "cifar100-resnet32",
    "cifar100-resnet32-soft-targets",
    "cifar100-resnet32x4",
    "cifar100-resnet50",
    "cifar100-resnet56",
    "cifar100-resnet8x4",
    "cifar100-resnet8x4-soft-targets",
    "cifar100-vgg13",
    "cifar100-vgg8",
    "cifar100-vgg8-soft-targets",
    "cifar100-wrn-16-2",
    "cifar100-wrn-16-2-soft-targets",
    "cifar100-wrn-40-1",
    "cifar100-wrn-40-1-soft-targets",
    "cifar100-wrn-40-2",
    "fashion-mnist-labels",
    "glyphs-labels",
    "glyphs-soft-targets",
    "glyphs-teacher",
]


def test_every_name_that_there_ever_was_is_still_the_name_of_its_recipe():
    assert set(OLD) <= set(recipe.names())
    for name in OLD:
        this = recipe.load(name)
        assert this.name == name
        assert this.settings["objective"]["name"] == ("soft_targets" if name.endswith("soft-targets") else "labels")


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (("cifar100-resnet20", None), "cifar100-resnet20"),
        (("cifar100-resnet20", "labels"), "cifar100-resnet20"),
        (("cifar100-resnet20-labels", None), "cifar100-resnet20"),
        (("cifar100-resnet20", "soft-targets"), "cifar100-resnet20-soft-targets"),
        (("cifar100-resnet20", "logit-matching"), "cifar100-resnet20-logit-matching"),
        (("glyphs", None), "glyphs-labels"),
        (("glyphs", "soft-targets"), "glyphs-soft-targets"),
        (("glyphs-teacher", "labels"), "glyphs-teacher"),
    ],
)
def test_a_pair_and_a_method_are_the_recipe_of_both(asked, name):
    place, method = asked
    this = recipe.load(place, method=method)
    assert this.name == name
    assert this.settings == recipe.load(name).settings
    assert not this.changed


def test_published_numbers_belong_to_a_method():
    assert recipe.load("cifar100-resnet20", method="soft-targets").published["accuracy"] == 0.7066
    assert recipe.load("cifar100-resnet20", method="labels").published["accuracy"] == 0.6906
    assert recipe.load("cifar100-resnet20", method="logit-matching").published == {}


def test_a_method_that_is_not_there_or_wants_a_teacher_is_refused():
    with pytest.raises(ValueError, match=r"method='soft-target' is not known; did you mean 'soft-targets'\?"):
        recipe.load("cifar100-resnet20", method="soft-target")
    with pytest.raises(ValueError, match="wants a teacher, and 'cifar100-resnet56' names none"):
        recipe.load("cifar100-resnet56", method="soft-targets")
    with pytest.raises(ValueError, match="recipe='cifar100-resnet20-soft-targets' is not known"):
        recipe.load("cifar100-resnet20-soft-targets", method="labels")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    copy = tmp_path / "recipes"
    shutil.copytree(pairs.FOLDER, copy)
    monkeypatch.setattr(pairs, "FOLDER", copy)
    monkeypatch.setattr(recipe, "PAIRS", copy / "pairs")
    monkeypatch.setattr(recipe, "BASES", copy / "base")
    return copy


def test_a_new_method_is_one_file_and_serves_every_pair_with_a_teacher(folder):
    text = 'title = "hot targets"\n\n[objective]\nname = "soft_targets"\ntemperature = 20.0\n'
    (folder / "methods" / "hot.toml").write_text(text)
    new = {name for name in recipe.names() if name.endswith("-hot")}
    assert len(new) == sum("[teacher]" in file.read_text() for file in (folder / "pairs").glob("*.toml"))
    assert recipe.load("glyphs", method="hot").settings["objective"]["temperature"] == 20.0
    assert recipe.load("glyphs-hot").title.endswith(": hot targets")


def test_a_new_pair_is_one_file_and_has_every_method(folder):
    text = 'title = "mine"\nbase = "glyphs"\n[model]\nname = "small_cnn"\n[teacher]\nrecipe = "glyphs-teacher"\n'
    (folder / "pairs" / "mine.toml").write_text(text)
    assert {"mine", "mine-soft-targets", "mine-logit-matching"} <= set(recipe.names())
    assert recipe.load("mine-soft-targets").teacher == "glyphs-teacher"


def test_a_file_of_ones_own_can_be_trained_by_any_method(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('title = "o"\nbase = "glyphs"\n[model]\nname = "small_cnn"\n[teacher]\nrecipe = "glyphs-teacher"\n')
    assert recipe.load(path, method="soft-targets").name == "own-soft-targets"
    assert recipe.load(path, method="labels").name == "own"


@pytest.mark.parametrize("name", ["...toml", "..toml", "a..toml", ".toml", " .toml", "-x.toml"])
def test_a_file_whose_name_is_no_name_for_a_folder_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text('title = "o"\nbase = "glyphs"\n[model]\nname = "small_cnn"\n')
    with pytest.raises(ValueError, match="results would lie in a folder"):
        recipe.load(path)


@pytest.mark.parametrize("name", ["cifar100-resnet20", "cifar100-resnet20-soft-targets", "glyphs"])
def test_a_file_named_like_a_recipe_that_comes_along_is_refused(tmp_path, name):
    path = tmp_path / f"{name}.toml"
    path.write_text('title = "o"\nbase = "glyphs"\n[model]\nname = "small_cnn"\n')
    with pytest.raises(ValueError, match="has the name of a recipe that comes with the package"):
        recipe.load(path)


@pytest.mark.parametrize("file", sorted(pairs.FOLDER.rglob("*.toml")), ids=lambda file: file.stem)
def test_every_file_is_short_enough_to_read_at_a_glance(file):
    assert 5 <= len(file.read_text(encoding="utf-8").splitlines()) <= 32
