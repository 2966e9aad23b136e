import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kdutils import models
from kdutils.models import registry
from kdutils.transfer import freeze, with_dropout


@pytest.fixture(autouse=True)
def own_builders(monkeypatch):
    """Builders registered in a test are forgotten after it."""
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))


def test_a_model_by_name_is_the_one_its_builder_makes():
    torch.manual_seed(0)
    by_name = models.create("small_cnn", classes=4, width=3)
    torch.manual_seed(0)
    direct = models.small_cnn(4, width=3)
    assert str(by_name) == str(direct)
    assert all(torch.equal(a, b) for a, b in zip(by_name.parameters(), direct.parameters(), strict=True))


def test_an_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(ValueError, match=r"name='resnet_20' is not known; did you mean 'resnet20'.*wrn_40_2"):
        models.create("resnet_20")


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match=r"small_cnn.*widht"):
        models.create("small_cnn", widht=3)


def test_every_builder_that_is_exported_has_its_name_in_the_list():
    helpers = {"blocks", "create", "head_path", "imagenet_classes", "load", "names", "options", "preprocess"}
    helpers |= {"register", "save", "tapped"}
    assert set(models.names()) == set(models.__all__) - helpers


def test_the_config_holds_every_option_defaults_included():
    config = models.mlp(5, hidden=(8, 4)).config
    assert config == {"name": "mlp", "options": {"classes": 5, "inputs": 256, "hidden": [8, 4], "dropout": 0.0}}


@pytest.mark.parametrize("name", ["small_cnn", "mlp", "resnet8", "shufflenetv1"])
def test_a_saved_model_comes_back_bit_equal(tmp_path, name):
    model = models.create(name, classes=6)
    for value in model.state_dict().values():
        value.copy_(torch.rand_like(value) if value.is_floating_point() else value + 3)
    models.save(model, tmp_path / "new" / "folder")
    again = models.load(tmp_path / "new" / "folder")
    assert again.config == model.config
    assert not again.training
    assert str(again) == str(model.eval())
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_loading_and_saving_leave_the_random_state_as_it_was(tmp_path):
    model = models.small_cnn()
    before = torch.get_rng_state()
    models.save(model, tmp_path)
    models.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_config_beside_the_weights_can_be_read_by_people(tmp_path):
    models.save(models.small_cnn(width=5), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["options"]["width"] == 5


def test_a_channels_last_model_is_saved_and_loaded(tmp_path):
    model = models.small_cnn().to(memory_format=torch.channels_last).eval()
    models.save(model, tmp_path)
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(models.load(tmp_path)(images), model(images))


def test_a_model_without_a_builder_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"Linear was not made by a registered builder.*@kdutils\.models\.register"):
        models.save(nn.Linear(2, 2), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_whose_head_was_replaced_is_refused_and_the_old_save_stays(tmp_path):
    model = models.small_cnn(classes=10)
    models.save(model, tmp_path)
    old = (tmp_path / "model.safetensors").read_bytes()
    model.head = nn.Linear(64, 3)
    with pytest.raises(
        ValueError, match=r"no longer what small_cnn\(classes=10.*head\.weight has shape \(3, 64\), want"
    ):
        models.save(model, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == old


def test_a_parametrized_model_is_refused_with_the_way_out_and_saved_where_its_builder_made_it_so(tmp_path):
    model = models.small_cnn(3, width=4)
    nn.utils.parametrizations.weight_norm(model.head)
    with pytest.raises(ValueError, match=r"'head' has parametrizations.*saved; kd.compress.bake.*remove_parametriz"):
        models.save(model, tmp_path)
    assert list(tmp_path.iterdir()) == []

    @models.register
    def normed(classes: int = 3) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(4, classes)))

    models.save(normed(), tmp_path)
    assert models.load(tmp_path)(torch.ones(1, 4)).shape == (1, 3)


@pytest.mark.parametrize(
    ("path", "layer", "message"),
    [
        ("block2.2", nn.GELU(), r"block2\.2 is GELU\(.*\), wanted ReLU\(\)"),
        ("pool", nn.AdaptiveMaxPool2d(1), r"pool is AdaptiveMaxPool2d.*wanted AdaptiveAvgPool2d\(output_size=1\)"),
        ("block1.0", nn.Conv2d(1, 16, 3, 2, 1, bias=False, padding_mode="reflect"), "padding_mode=reflect.*wanted"),
        ("block1.3", nn.Tanh(), r"block1\.3 is not wanted"),
    ],
)
def test_a_model_with_other_layers_of_the_same_weights_is_refused(tmp_path, path, layer, message):
    model = models.small_cnn()
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent).add_module(name, layer)
    with pytest.raises(ValueError, match=message):
        models.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_layer_that_serves_twice_is_compared_at_both_places(tmp_path):
    @models.register
    def shared() -> nn.Module:
        relu = nn.ReLU()
        return nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu)

    model = shared()
    model[3] = nn.ReLU()
    models.save(model, tmp_path)
    model[3] = nn.GELU()
    with pytest.raises(ValueError, match=r"3 is GELU\(.*\), wanted ReLU\(\)"):
        models.save(model, tmp_path)


def test_layers_that_only_train_otherwise_are_saved_as_what_they_are(tmp_path):
    model = freeze(with_dropout(models.small_cnn(classes=3)), "block1")
    models.save(model, tmp_path)
    again = models.load(tmp_path)
    assert type(again.head) is nn.Linear
    assert type(again.block1[1]) is nn.BatchNorm2d
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(again(images), model.eval()(images))


def test_a_model_of_a_class_that_was_defined_again_is_saved(tmp_path):
    def cell() -> nn.Module:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.head = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))  # whose class is made for it

        @models.register
        def net() -> nn.Module:
            return Net()

        return net()

    model = cell()
    assert type(model) is not type(cell())
    models.save(model, tmp_path)
    state = models.load(tmp_path).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_comes_back_in_the_type_it_had(tmp_path, dtype):
    model = models.small_cnn(classes=3).to(dtype).eval()
    with torch.no_grad():
        model.head.bias.fill_(1 / 3)
    model.head.float()  # types may be mixed
    models.save(model, tmp_path)
    again = models.load(tmp_path)
    for name, value in model.state_dict().items():
        assert again.state_dict()[name].dtype == value.dtype, name
        assert torch.equal(again.state_dict()[name], value), name
    assert all(parameter.requires_grad for parameter in again.parameters())
    body = torch.rand(2, 1, 16, 16, dtype=dtype)
    assert torch.equal(again[:-1](body), model[:-1](body))


def test_tied_weights_come_back_tied(tmp_path):
    @models.register
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model[1].weight = model[0].weight
        return model

    models.save(tied().double(), tmp_path)
    again = models.load(tmp_path)
    assert again[1].weight is again[0].weight
    assert again[0].weight.dtype == torch.float64


def test_a_builder_of_ones_own_is_created_saved_and_loaded(tmp_path):
    @models.register
    def tiny(outputs: int = 2) -> nn.Module:
        return nn.Linear(3, outputs)

    model = tiny(outputs=4)
    models.save(model, tmp_path)
    assert "tiny" in models.names()
    assert torch.equal(models.load(tmp_path).weight, model.weight)


def test_a_builder_around_another_one_is_rebuilt_as_a_whole(tmp_path):
    @models.register
    def reheaded(classes: int) -> nn.Module:
        model = models.small_cnn(classes=10, width=2)
        model.head = nn.Linear(model.head.in_features, classes)
        return model

    models.save(reheaded(3), tmp_path)
    assert models.load(tmp_path).config == {"name": "reheaded", "options": {"classes": 3}}


def test_registering_again_replaces_but_never_another_modules_builder():
    def tiny() -> nn.Module:
        return nn.Linear(1, 1)

    models.register(tiny)
    models.register(tiny)

    def resnet20() -> nn.Module:
        return nn.Linear(1, 1)

    with pytest.raises(ValueError, match=r"'resnet20' stands in kdutils\.models\.resnet"):
        models.register(resnet20)


def test_a_builder_whose_arguments_have_no_names_is_refused():
    def anything(*sizes: int, **more: int) -> nn.Module:
        return nn.Linear(*sizes)

    with pytest.raises(TypeError, match=r"'anything'.*\*sizes: int, \*\*more: int"):
        models.register(anything)


def test_an_option_that_does_not_fit_into_json_is_named_when_the_model_is_built():
    @models.register
    def tiny(device: object = None) -> nn.Module:
        return nn.Linear(1, 1)

    with pytest.raises(TypeError, match="option 'device' of builder 'tiny' must fit into JSON"):
        tiny(torch.device("cpu"))


def test_an_empty_folder_says_which_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model in folder=.*model\.safetensors"):
        models.load(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_a_truncated_file_is_reported_with_its_name(tmp_path, kept):
    models.save(models.mlp(), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated or damaged"):
        models.load(tmp_path)


def test_weights_that_do_not_fit_are_named(tmp_path):
    models.save(models.mlp(classes=3), tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    state["extra"] = torch.zeros(1)
    state["head.weight"] = torch.zeros(4, 64)
    del state["head.bias"]
    config = json.dumps(models.mlp(classes=3).config)
    save_file(state, path, metadata={"config": config})
    with pytest.raises(ValueError, match="do not fit") as caught:
        models.load(tmp_path)
    for words in ("head.bias is missing", "extra is not wanted", "head.weight has shape (4, 64), wanted (3, 64)"):
        assert words in str(caught.value)


def test_weights_from_elsewhere_are_refused_for_want_of_a_builder(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not the name of their builder"):
        models.load(tmp_path)


def test_a_builder_that_is_not_registered_here_is_named(tmp_path):
    @models.register
    def tiny() -> nn.Module:
        return nn.Linear(1, 1)

    models.save(tiny(), tmp_path)
    del registry._BUILDERS["tiny"]
    with pytest.raises(ValueError, match="made by 'tiny', a builder that is not registered here"):
        models.load(tmp_path)


@pytest.mark.parametrize("step", [1, 2])
def test_a_save_that_breaks_leaves_the_old_model_or_the_new_one(tmp_path, monkeypatch, step):
    old, new = models.mlp(hidden=(8,), dropout=0.1), models.mlp(hidden=(8,), dropout=0.5)
    models.save(old, tmp_path)
    calls = 0

    def breaks(source, target):
        nonlocal calls
        calls += 1
        if calls == step:
            raise OSError("no space left")
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", breaks)
    with pytest.raises(OSError, match="no space left"):
        models.save(new, tmp_path)
    expected = old if step == 1 else new
    again = models.load(tmp_path)
    assert again.config == expected.config
    assert torch.equal(again.head.weight, expected.head.weight)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "config.json"}


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(NotADirectoryError, match="taken"):
        models.save(models.mlp(), tmp_path / "taken")
