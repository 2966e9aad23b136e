"""Recipes: what the shipped ones say, and what a wrong one is told."""

import inspect
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import kdutils as kd
from kdutils.command import assemble, recipe, schema
from kdutils.command.published import PUBLISHED_SETS, PublishedSet, image_shape
from kdutils.data import augment
from kdutils.measure import parameters

# CIFAR-100 top-1 accuracies in percent, typed from the table of the CRD paper's repository: teacher, student, KD.
PAIRS = {
    ("wrn_40_2", "wrn_16_2"): (75.61, 73.26, 74.92),
    ("wrn_40_2", "wrn_40_1"): (75.61, 71.98, 73.54),
    ("resnet56", "resnet20"): (72.34, 69.06, 70.66),
    ("resnet110", "resnet32"): (74.31, 71.14, 73.08),
    ("resnet32x4", "resnet8x4"): (79.42, 72.50, 73.33),
    ("vgg13", "vgg8"): (74.64, 70.36, 72.98),
    ("resnet50", "mobilenetv2"): (79.34, 64.60, 67.35),
}

# The same table's rows of methods on intermediate knowledge, in the order of the pairs above.
INTERMEDIATE = {
    "attention-transfer": (74.08, 72.77, 70.55, 72.31, 73.44, 71.43, 58.58),
    "crd": (75.48, 74.14, 71.16, 73.48, 75.51, 73.94, 69.11),
    "hints": (73.58, 72.24, 69.21, 71.06, 73.50, 71.02, 63.16),
    "nst": (73.68, 72.24, 69.60, 71.96, 73.30, 71.53, 64.96),
    "pkt": (74.54, 73.45, 70.34, 72.61, 73.64, 72.88, 66.52),
    "rkd": (73.35, 72.22, 69.61, 71.82, 71.90, 71.48, 64.43),
    "sp": (73.83, 72.43, 69.67, 72.69, 72.94, 72.68, 68.08),
    "vid": (74.11, 73.30, 70.38, 72.61, 73.09, 71.23, 67.57),
}

# Of the papers' own tables: the best test epoch. That of DKD is for the pair whose β the method file has.
BETTER = {
    "dist": (None, 74.43, 71.75, None, 76.31, None, 68.66),
    "dkd": (None, None, None, None, 76.32, None, None),
    "standardized-logits": (76.11, 74.37, 71.43, 74.17, 76.62, 74.36, 69.02),
}


def published(model: str, ending: str = "") -> recipe.Recipe:
    return recipe.load(f"cifar100-{model.replace('_', '-')}{ending}")


@pytest.fixture
def written(tmp_path):
    """Writes a recipe to a file and loads it."""

    def write(text: str, *settings: str, name: str = "mine") -> recipe.Recipe:
        path = tmp_path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return recipe.load(path, settings)

    return write


SMALL = """
title = "Mine"
[data]
name = "glyphs"
characters = "digits"
count = 20
[data.test]
seed = 1
[model]
name = "small_cnn"
[fit]
epochs = 1
"""


# The shipped ones


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_published_numbers_are_those_of_the_table(pair):
    teacher, student = pair
    of_teacher, of_student, distilled = (round(number / 100, 4) for number in PAIRS[pair])
    assert published(teacher).published == {"accuracy": of_teacher, "epoch": "last"}
    assert published(student).published == {"accuracy": of_student, "epoch": "last"}
    assert published(student, "-soft-targets").published == {
        "accuracy": distilled,
        "student": of_student,
        "teacher": of_teacher,
        "epoch": "last",
    }


@pytest.mark.parametrize("method", INTERMEDIATE)
def test_the_published_numbers_of_intermediate_knowledge_are_those_of_the_table(method):
    for (pair, numbers), accuracy in zip(PAIRS.items(), INTERMEDIATE[method], strict=True):
        of_teacher, of_student, _ = (round(number / 100, 4) for number in numbers)
        found = published(pair[1], f"-{method}").published
        assert found == {
            "accuracy": round(accuracy / 100, 4),
            "student": of_student,
            "teacher": of_teacher,
            "epoch": "last",
        }


@pytest.mark.parametrize("method", BETTER)
def test_the_published_numbers_of_better_soft_targets_are_those_of_their_papers(method):
    for (pair, numbers), accuracy in zip(PAIRS.items(), BETTER[method], strict=True):
        found = published(pair[1], f"-{method}").published
        of_teacher, of_student, _ = (round(number / 100, 4) for number in numbers)
        if accuracy is None:
            assert not found
        else:
            assert found == {
                "accuracy": round(accuracy / 100, 4),
                "student": of_student,
                "teacher": of_teacher,
                "epoch": "best",
            }


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_pair_is_trained_as_its_paper_says(pair):
    teacher, student = pair
    this = published(student, "-soft-targets")
    assert this.settings["model"] == {"name": student}
    assert this.settings["teacher"] == {"recipe": published(teacher).name}
    assert this.settings["objective"] == {"name": "soft_targets", "temperature": 4.0, "weight": 0.9}
    assert published(teacher).settings["model"] == {"name": teacher}
    for name in (teacher, student):
        assert published(name).settings["objective"] == {"name": "labels"}
    for ending in ("", "-soft-targets"):
        options = assemble.fit_options(published(student, ending))
        assert options.pop("schedule")(0.624) == 1.0
        assert options.pop("augment").count == 81 * 2  # crops by up to 4 pixels either way, and their mirror images
        rate = 0.01 if student == "mobilenetv2" else 0.05
        assert options == {
            "epochs": 240,
            "batch_size": 64,
            "optimizer": "sgd",
            "learning_rate": rate,
            "weight_decay": 5e-4,
        }


def test_the_learning_rate_falls_after_epochs_150_180_and_210_of_240():
    factor = assemble.fit_options(published("resnet20"))["schedule"]
    rates = [factor(epoch / 240) for epoch in range(240)]  # each epoch's first step; the paper counts epochs from one
    assert [rates.index(pytest.approx(value)) for value in (1, 0.1, 0.01, 0.001)] == [0, 150, 180, 210]


def test_no_published_recipe_is_without_a_row_in_the_table():
    names = {f"cifar100-{model.replace('_', '-')}" for pair in PAIRS for model in pair}
    methods = ["soft-targets", *INTERMEDIATE]
    names |= {f"cifar100-{student.replace('_', '-')}-{method}" for _, student in PAIRS for method in methods}
    for method, accuracies in BETTER.items():
        known = zip(PAIRS, accuracies, strict=True)
        names |= {f"cifar100-{pair[1].replace('_', '-')}-{method}" for pair, accuracy in known if accuracy is not None}
    assert {name for name in recipe.names() if recipe.load(name).published} == names


@pytest.mark.parametrize("name", recipe.names())
def test_every_shipped_recipe_builds_its_networks_and_its_objective(name):
    this = recipe.load(name)
    shape, classes = {"cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100)}.get(
        this.settings["data"]["name"], ((1, 16, 16), 62)
    )
    with torch.device("meta"):  # shapes without weights
        model = assemble.build_model(this, classes, shape)
        teacher = None if this.teacher is None else assemble.build_model(recipe.load(this.teacher), classes, shape)
    data = kd.Dataset(torch.zeros(4, *shape), torch.arange(4), tuple(map(str, range(classes))))
    objective = assemble.build_objective(this, model, teacher, data)
    assert objective.learner is model
    assert model(torch.zeros(2, *shape, device="meta")).shape == (2, classes)
    assert teacher is None or parameters(teacher) > 2 * parameters(model)
    assert not this.changed
    assert this.source


def test_what_a_recipe_may_set_is_what_fit_takes():
    assert set(schema.FIT) <= set(inspect.signature(kd.fit).parameters)


@pytest.mark.parametrize("name", PUBLISHED_SETS)
def test_what_is_known_of_a_public_set_names_a_set(name):
    assert name in kd.data.names()


# Reading


def test_the_text_of_a_resolved_recipe_makes_the_same_recipe(written):
    this = recipe.load("cifar100-mobilenetv2-soft-targets")
    again = written(f'title = "again"\n{this.toml()}')
    assert again.settings == this.settings


def test_settings_change_values_and_are_remembered():
    this = recipe.load("cifar100-resnet20", ["fit.epochs=3", "fit.learning_rate=1e-2", "augment.flip=false"])
    assert this.changed == {"fit.epochs": 3, "fit.learning_rate": 0.01, "augment.flip": False}
    assert assemble.fit_options(this)["augment"] == augment.shift_crop(4)


def test_a_setting_equal_to_the_recipes_own_is_no_change():
    assert recipe.load("cifar100-resnet20", ["fit.epochs=240"]).changed == {}


def test_values_are_toml_and_else_text():
    this = recipe.load("cifar100-resnet20", ["model.name=resnet8", "fit.schedule=cosine", "fit.compile=true"])
    assert this.settings["model"]["name"] == "resnet8"
    assert this.settings["fit"]["schedule"] == "cosine"
    assert this.settings["fit"]["compile"] is True


def test_a_rate_in_a_file_may_be_changed_from_outside_by_its_dotted_name(written):
    this = written(SMALL + 'rates = { "learner.head" = 10 }\n', "fit.rates.learner.head=5")
    assert this.settings["fit"]["rates"] == {"learner.head": 5}


def test_a_key_and_one_below_it_are_not_both_set():
    with pytest.raises(ValueError, match=r"fit\.rates\.learner cannot be set beside keys below it"):
        recipe.load("glyphs-labels", ["fit.rates.learner.head=1", "fit.rates.learner=1"])


def test_mixing_is_what_the_recipe_says():
    assert "mix" not in assemble.fit_options(recipe.load("glyphs-labels", ["mix.mixup=false"]))
    mixing = assemble.fit_options(recipe.load("glyphs-labels", ["mix.cutmix.alpha=0.5"]))["mix"]
    assert mixing.keywords == augment.cutmix(0.5).keywords
    assert mixing.func is augment.cutmix().func


def test_another_model_does_not_inherit_the_options_of_the_first():
    this = recipe.load("glyphs-teacher", ["model.name=resnet8"])
    assert this.settings["model"] == {"name": "resnet8"}


def test_other_data_keeps_how_it_is_standardized_and_watched_and_no_more():
    this = recipe.load("glyphs-labels", ["data.name=digits", "data.test.fraction=0.2"])
    assert this.settings["data"] == {"standardize": True, "name": "digits", "test": {"fraction": 0.2}}
    that = recipe.load("cifar100-resnet20", ["data.name=svhn"])
    assert that.settings["data"] == {"standardize": True, "validation": "test", "name": "svhn"}


def test_a_recipe_inherits_from_a_file_beside_it_and_its_paths_are_relative_to_it(written, tmp_path):
    (tmp_path / "common.toml").write_text(SMALL.replace('title = "Mine"', "") + '[teacher]\nfolder = "there"\n')
    this = written('title = "t"\nbase = "common.toml"\n[objective]\nname = "soft_targets"\n[fit]\nlearning_rate = 1\n')
    assert this.settings["fit"] == {"epochs": 1, "learning_rate": 1}
    assert this.settings["teacher"]["folder"] == str(tmp_path / "there")
    assert this.portable()["teacher"]["folder"] == "(a folder)"


def test_a_recipe_inherits_from_a_shipped_one_but_not_what_was_published(written):
    this = written('title = "hotter"\nbase = "cifar100-resnet20-soft-targets"\n[objective]\ntemperature = 8\n')
    assert this.settings["objective"] == {"name": "soft_targets", "temperature": 8, "weight": 0.9}
    assert this.published == {}


def test_an_objective_that_is_registered_can_be_named(written, monkeypatch):
    class Scaled(kd.Supervised):
        def __init__(self, learner: nn.Module, scale: float = 1.0) -> None:
            super().__init__(learner)
            self.scale = scale

    monkeypatch.setitem(schema.OBJECTIVES, "scaled", Scaled)
    this = written(SMALL + '[objective]\nname = "scaled"\nscale = 2\n')
    assert assemble.build_objective(this, nn.Linear(1, 1)).scale == 2
    with pytest.raises(ValueError, match=r"'objective.scal' is not known; did you mean 'objective.scale'\?"):
        written(SMALL + '[objective]\nname = "scaled"\nscal = 2\n')


# Wrong ones

WRONG = {
    "fit.epoch=1": r"'fit.epoch' is not known; did you mean 'fit.epochs'\?",
    "epochs=1": r"'epochs' is not known; did you mean 'fit.epochs'\?",
    "modle.name=resnet8": r"'modle' is not known; did you mean 'model'\?",
    "model.clases=3": r"'model.clases' is not known; did you mean 'model.classes'\?",
    "model.name=resnet21": "model.name='resnet21' is not known; did you mean 'resnet",
    "data.name=cifr100": "data.name='cifr100' is not known; did you mean 'cifar100'",
    "data.sise=3": r"'data.sise' is not known; did you mean 'data.size'\?",
    "data.train.splt=x": r"'data.train.splt' is not known; did you mean 'data.train.split'\?",
    "data.standardize=3": "data.standardize must be true or false; got 3",
    "data.validation=tset": "data.validation='tset' is not known; did you mean 'test'",
    "data.test.fraction=1.5": "data.test.fraction must lie between 0 and 1; got 1.5",
    "augment.flipp=1": r"'augment.flipp' is not known; did you mean 'augment.flip'\?",
    "augment.flip.probabilty=1": r"did you mean 'augment.flip.probability'\?",
    "mix.mixupp=1": r"did you mean 'mix.mixup'\?",
    "objective.name=soft_target": "did you mean 'soft_targets'",
    "objective.temprature=2": r"'objective.temprature' is not known; did you mean 'objective.temperature'\?",
    "teacher.recipe=cifar100-resnet65": "did you mean 'cifar100-resnet",
    "teacher.sed=1": r"'teacher.sed' is not known; did you mean 'teacher.seed'\?",
    "teacher.folder=/there": "a recipe, or a folder with a saved model; one of the two",
    "fit.epochs=many": "fit.epochs must be a whole number; got 'many'",
    "fit.epochs=true": "fit.epochs must be a whole number; got True",
    "fit.learning_rate=fast": "fit.learning_rate must be a number; got 'fast'",
    "fit.schedule.att=[1]": r"did you mean 'fit.schedule.at'\?",
    "fit.keep=best": "the test set selects nothing",
    "fit.patience=3": "the test set selects nothing",
    "fit.device=cpu": "'fit.device' is not known",
    "title=x": "title cannot be set from outside",
    "seeds=3": "seeds cannot be set from outside.*--seeds",
    "fit.epochs": "a setting must read key=value, such as fit.epochs=1; got 'fit.epochs'",
    "data.root=/nowhere/at/all": "data.root='/nowhere/at/all' is not a folder",
}


@pytest.mark.parametrize("setting", WRONG)
def test_a_wrong_setting_is_named_with_what_is_wanted(setting):
    with pytest.raises((ValueError, FileNotFoundError), match=WRONG[setting]):
        recipe.load("cifar100-resnet20-soft-targets", [setting])


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'cifar100-resnet20'"):
        recipe.load("cifar100-resnet-20")
    with pytest.raises(FileNotFoundError, match=r"there is no such file"):
        recipe.load("nowhere.toml")


def test_a_file_that_is_not_toml_is_named(written):
    with pytest.raises(ValueError, match="recipe 'mine' is not TOML"):
        written("title = ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL.replace('"Mine"', "3"), "title must be a text; got 3"),
        (SMALL.replace('[model]\nname = "small_cnn"', ""), r"the table \[model\] is missing"),
        (SMALL.replace("epochs = 1", "batch_size = 2"), "fit.epochs is missing"),
        (SMALL + '[objective]\nname = "soft_targets"\n', "wants a teacher: name its recipe in"),
        (SMALL + '[teacher]\nrecipe = "glyphs-teacher"\n', r"has no teacher; take \[teacher\] out"),
        ("published = { accuracy = 70.66 }\n" + SMALL, r"published.accuracy must lie in \[0, 1\]; got 70.66"),
        ('published = { epoch = "lst" }\n' + SMALL, "did you mean 'last'"),
        ("published = { acuracy = 0.7 }\n" + SMALL, r"did you mean 'published.accuracy'\?"),
        ("seeds = 0\n" + SMALL, "seeds must be at least 1; got 0"),
        ('base = "cifar1000"\n' + SMALL, "did you mean 'cifar100'"),
        ('base = "mine.toml"\n' + SMALL, "leads back to itself"),
        ("tittle = 3\n" + SMALL, r"'tittle' is not known; did you mean 'title'\?"),
        ("fit = 3\n" + SMALL.replace("[fit]\nepochs = 1", ""), "fit must be a table; got 3"),
        (SMALL + "[mix]\nmixup = 1\ncutmix = 1\n", "got both"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(written, text, message):
    with pytest.raises(ValueError, match=message):
        written(text)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.width=wide", "width must be a whole number"),
        ("model.norm=[1]", "norm"),
        ("data.rotation=x", "an option has the wrong type"),
        ("augment.flip=maybe", "an option has the wrong type"),
        ("fit.schedule.at=3", "an option has the wrong type"),
    ],
)
def test_an_option_of_the_wrong_type_is_an_error_of_the_recipe(written, setting, message):
    this = written(SMALL, setting)
    with pytest.raises(ValueError, match=message):
        (
            assemble.load_data(this.settings["data"]),
            assemble.build_model(this, 10, (1, 16, 16)),
            assemble.fit_options(this),
        )


# Data


def test_all_parts_are_standardized_by_the_training_part(written):
    table = written(SMALL, "data.standardize=true", "data.validation.seed=2").settings["data"]
    data = assemble.load_data(table)
    raw = kd.data.glyphs("digits", 20, seed=0)
    assert data.statistics is not None
    torch.testing.assert_close(data.train.images, raw.standardized().images)
    torch.testing.assert_close(data.test.images, kd.data.glyphs("digits", 20, seed=1).standardized(like=raw).images)
    assert data.validation is not None
    assert not data.validated_on_test
    assert data.statistics["mean"] == [pytest.approx(float(raw.images.mean()))]


def test_a_dry_run_counts_the_images_that_load_data_leaves(monkeypatch):
    table = {"name": "mnist", "test": {"fraction": 0.2}, "validation": {"fraction": 0.1}}
    assert image_shape(table)[0] == 43_200  # 60,000 less a fifth, less a tenth of the rest
    whole = kd.Dataset(torch.zeros(997, 1, 4, 4), torch.zeros(997).long(), ("a",), "many")
    monkeypatch.setattr(kd.data, "load", lambda *arguments, **options: whole)
    monkeypatch.setitem(PUBLISHED_SETS, "mnist", PublishedSet(997, (1, 4, 4), 1))
    assert image_shape(table)[0] == len(assemble.load_data(table).train)


def test_fractions_are_held_out_and_share_no_sample(written):
    text = SMALL.replace("[data.test]\nseed = 1", "[data.test]\nfraction = 0.25\n[data.validation]\nfraction = 0.2")
    data = assemble.load_data(written(text).settings["data"])
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 3, 5]
    images = torch.cat([part.images for part in (data.train, data.validation, data.test)])
    assert len(images.flatten(1).unique(dim=0)) == 20


def test_the_test_part_as_validation_is_the_test_part(written):
    data = assemble.load_data(written(SMALL, "data.validation=test").settings["data"])
    assert data.validated_on_test
    assert data.validation is data.test


def test_a_set_whose_test_part_would_be_its_training_part_is_refused(written):
    this = written(SMALL.replace("[data.test]\nseed = 1", ""))
    with pytest.raises(ValueError, match="has no test part of its own"):
        assemble.load_data(this.settings["data"])


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of CIFAR-10's shape: train and test, ten classes, two pictures of each."""
    for part in ("train", "test"):
        for number in range(10):
            folder = tmp_path / "pictures" / part / f"class{number}"
            folder.mkdir(parents=True)
            for copy in range(2):
                shade = 20 * number + copy + (5 if part == "test" else 0)
                Image.new("RGB", (32, 32), (shade, shade, 255 - shade)).save(folder / f"{copy}.png")
    return tmp_path / "pictures"


def test_a_folder_of_pictures_stands_for_the_published_archive(pictures):
    this = recipe.load("cifar10-resnet20", [f"data.root={pictures}"])
    assert this.settings["data"]["name"] == "image_folder"
    data = assemble.load_data(this.settings["data"])
    assert (len(data.train), len(data.test), data.train.shape) == (20, 20, (3, 32, 32))
    assert data.train.classes == data.test.classes
    assert this.changed == {"data.name": "image_folder", "data.size": [32, 32], "data.channels": 3}
    assert str(pictures) not in str(this.portable())


def test_a_folder_of_validation_pictures_is_used_unless_the_recipe_says_otherwise(pictures):
    (pictures / "validation").symlink_to(pictures / "test")
    settings = ["data.name=image_folder", f"data.root={pictures}", "data.size=8"]
    own = assemble.load_data(recipe.load("glyphs-labels", settings).settings["data"])
    assert (own.validation.name, own.validated_on_test) == ("test", False)
    published = assemble.load_data(recipe.load("cifar10-resnet20", settings).settings["data"])
    assert published.validated_on_test


def test_a_folder_without_pictures_is_where_the_archive_should_be(tmp_path):
    this = recipe.load("cifar10-resnet20", [f"data.root={tmp_path}"])
    assert this.settings["data"]["name"] == "cifar10"
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python\.tar\.gz is missing from"):
        assemble.load_data(this.settings["data"])


def test_pictures_without_a_folder_say_which_setting_is_wanted():
    this = recipe.load("cifar10-resnet20", ["data.name=image_folder", "data.size=8"])
    with pytest.raises(FileNotFoundError, match=r"--set data\.root=FOLDER"):
        assemble.load_data(this.settings["data"])


def test_a_model_fits_the_data_unless_the_recipe_says_otherwise():
    own = recipe.load("glyphs-labels", ["model.classes=70"])
    assert assemble.build_model(own, 62, (1, 16, 16)).head.out_features == 70
    over_pixels = recipe.load("glyphs-labels", ["model.name=mlp"])
    assert assemble.build_model(over_pixels, 62, (1, 8, 8))(torch.zeros(1, 1, 8, 8)).shape == (1, 62)
