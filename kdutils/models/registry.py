"""Models by name, and models in folders: builders, ``create``, ``save`` and ``load``."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from kdutils.checks import require_choice, require_folder, require_plain_weights
from kdutils.files import require_replaceable, write_atomically

__all__ = ["create", "load", "names", "options", "register", "save"]

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

P = ParamSpec("P")
M = TypeVar("M", bound=nn.Module)

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def register(builder: Callable[P, M]) -> Callable[P, M]:
    """Let a function that builds a model be found by its name, and its models be saved and loaded.

    Each model it returns gets an attribute ``config``: ``{"name": ..., "options": {...}}``. A saved model is rebuilt
    by calling the builder with those options, so they must fit into JSON. An option called ``pretrained`` is set to
    False then: the weights come from the folder.

    Args:
        builder: a function whose arguments can all be given by name. Registering it again (re-running a cell)
            replaces it.

    Returns:
        The builder, to be called as before; this is a decorator.

    Raises:
        TypeError: if the builder takes ``*arguments``, ``**options`` or positional-only arguments.
        ValueError: if a builder in another module has the name.
    """
    name = builder.__name__
    signature = inspect.signature(builder)
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    odd = [str(parameter) for parameter in signature.parameters.values() if parameter.kind not in named]
    if odd:
        raise TypeError(f"every argument of builder {name!r} must have a name; got {', '.join(odd)}")
    if name in _BUILDERS and _BUILDERS[name].__module__ != builder.__module__:
        raise ValueError(f"a builder named {name!r} stands in {_BUILDERS[name].__module__}; choose another name")

    @functools.wraps(builder)
    def build(*arguments: P.args, **options: P.kwargs) -> M:
        model = builder(*arguments, **options)
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        model.config = _json_copy(name, bound.arguments)  # type: ignore[assignment]
        return model

    _BUILDERS[name] = build
    return build


def names() -> tuple[str, ...]:
    """The names that :func:`create` knows."""
    return tuple(_BUILDERS)


def options(name: str) -> tuple[str, ...]:
    """The arguments that the builder of that name takes: ``options("resnet20")`` is ``("classes", "channels")``.

    Raises:
        ValueError: if the name is unknown; the message suggests the nearest and lists all.
    """
    require_choice("name", name, _BUILDERS)
    return tuple(inspect.signature(_BUILDERS[name]).parameters)


def create(name: str, **options: Any) -> nn.Module:
    """Build a model by name: ``create("resnet20", classes=10)`` is ``resnet20(classes=10)``.

    Raises:
        ValueError: if the name is unknown; the message suggests the nearest and lists all.
        TypeError: if the builder has no such option.
    """
    require_choice("name", name, _BUILDERS)
    return _BUILDERS[name](**options)


def save(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write a model to a folder, from which :func:`load` brings it back.

    All that :func:`load` reads is in ``model.safetensors``, one file that is replaced in one step: whatever happens
    while it is written, the folder holds the old model or the new one. ``config.json`` shows people what is in it.

    Args:
        model: made by a registered builder.
        folder: created if it is not there; a model saved there before is replaced.

    Raises:
        ValueError: if no registered builder made the model, or its layers were changed since (masked, say).
        OSError: if the folder cannot be written.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, Mapping) or config.get("name") not in _BUILDERS:
        raise ValueError(
            f"{type(model).__name__} was not made by a registered builder, so it could not be rebuilt; "
            "put @kdutils.models.register before the function that builds it"
        )
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    rebuilt = _rebuild(config)
    differences = _differences(rebuilt.state_dict(), state) or _other_layers(rebuilt, model)
    if differences:
        if not any(map(is_parametrized, rebuilt.modules())):
            require_plain_weights(model, "saved")
        raise ValueError(
            f"the model is no longer what {_call(config)} builds: {differences}; "
            "put @kdutils.models.register before a function that builds it as it is now"
        )
    path = require_folder("folder", folder)
    text = json.dumps(config, indent=2)
    require_replaceable(path / CONFIG)  # both or none
    write_atomically(path / WEIGHTS, to_safetensors(state, metadata={"config": text}))
    write_atomically(path / CONFIG, text.encode())


def load(folder: str | os.PathLike[str]) -> nn.Module:
    """Rebuild a model that :func:`save` wrote; on the CPU, in evaluation mode, each tensor of the type it had.

    Nothing in the folder is run as code, and torch's random state stays as it is.

    Raises:
        FileNotFoundError: if no model is in the folder.
        ValueError: if the file is truncated or not from :func:`save`, its builder is not registered here, or the
            weights do not fit; the message names those that differ.
    """
    path = Path(folder).expanduser() / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"no model in folder={str(path.parent)!r}: {WEIGHTS} is not there; save() writes it")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); save the model again") from error
    config = _read_config(metadata, path)
    if config["name"] not in _BUILDERS:
        raise ValueError(
            f"{path} holds a model made by {config['name']!r}, a builder that is not registered here; "
            "import the module that registers it first"
        )
    model = _rebuild(config)
    differences = _differences(model.state_dict(), state)
    if differences:
        raise ValueError(f"the weights in {path} do not fit what {_call(config)} builds: {differences}")
    for name, tensor in model.state_dict(keep_vars=True).items():  # which loading alone would leave in their types
        tensor.data = tensor.data.to(state[name].dtype)
    model.load_state_dict(state)
    return model.eval()


def _json_copy(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The config with its options as JSON gives them back, so that a model and its reloaded copy have the same."""
    for option, value in options.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise TypeError(f"option {option!r} of builder {name!r} must fit into JSON; got {value!r}") from error
    return {"name": name, "options": json.loads(json.dumps(dict(options)))}


def _read_config(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        config = json.loads(metadata["config"])
        return {"name": config["name"], "options": dict(config["options"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds weights but not the name of their builder; save() writes both") from error


def _rebuild(config: Mapping[str, Any]) -> nn.Module:
    options = dict(config["options"])
    if "pretrained" in options:
        options["pretrained"] = False
    with torch.random.fork_rng(devices=[]):  # the new weights are thrown away, and must not use up random numbers
        model = create(config["name"], **options)
    model.config = dict(config)  # type: ignore[assignment]
    return model


def _call(config: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name}={value!r}" for name, value in config["options"].items())
    return f"{config['name']}({options})"


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], most: int = 5) -> str:
    """What differs between two sets of weights, in words; empty if their names and shapes agree."""
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} is not wanted" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        wanted, got = tuple(expected[name].shape), tuple(found[name].shape)
        if wanted != got:
            wrong.append(f"{name} has shape {got}, wanted {wanted}")
    more = f", and {len(wrong) - most} more" if len(wrong) > most else ""
    return ", ".join(wrong[:most]) + more


def _other_layers(expected: nn.Module, found: nn.Module) -> str:
    """The first layer that is of another kind or has other options, in words; empty if there is none.

    A class derived from the expected one passes: its layer only trains otherwise (dropout, frozen statistics).
    """
    ones, others = (dict(model.named_modules(remove_duplicate=False)) for model in (expected, found))
    for path in sorted(ones.keys() | others.keys()):
        if path not in ones or path not in others:
            return f"{path} is {'missing' if path in ones else 'not wanted'}"
        one, other = ones[path], others[path]
        # By name: a cell that is run again makes the class again.
        name = _full_name(type(one))
        same = [kind for kind in type(other).__mro__ if issubclass(kind, nn.Module) and _full_name(kind) == name]
        if not same or same[0].extra_repr(other) != one.extra_repr():
            got, wanted = (f"{type(layer).__name__}({layer.extra_repr()})" for layer in (other, one))
            return f"{path or 'the model'} is {got}, wanted {wanted}"
    return ""


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
