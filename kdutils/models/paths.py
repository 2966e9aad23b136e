"""Places in a model, by dotted name: layers that are tapped, parameters that share a prefix, the head.

Works on any module, whoever wrote it: nothing here wants a special ``forward``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

__all__ = ["Pool", "blocks", "head_path", "pooled", "replaced", "require_layer", "require_prefixes", "tapped", "under"]

NEAREST = 5

Pool = Literal["mean", "max", "none"]
"""What becomes of the places of a feature map, or of the tokens of a sequence."""


@contextmanager
def tapped(model: nn.Module, layers: str | Sequence[str], *, inputs: bool = False) -> Iterator[dict[str, Tensor]]:
    """Within this, each forward of the model leaves the outputs of the named layers in a dictionary.

    The outputs are copies with their graph: a later layer that works in place does not change them, and gradients
    flow through them. Of a layer that gives several tensors the first is kept; of one that runs several times in a
    forward, the last output.

    Args:
        model: any module.
        layers: dotted paths, as in ``model.named_modules()``; ``""`` is the model itself.
        inputs: keep what goes into each layer instead of what comes out.

    Raises:
        ValueError: if a layer is not there; names the nearest. In a forward, if a layer gives no tensor.

    Example:
        >>> with tapped(model, ["layer1", "layer2.0.conv1"]) as seen:
        ...     model(images)
        >>> seen["layer1"].shape
    """
    paths = [layers] if isinstance(layers, str) else list(layers)
    modules = [require_layer(model, path) for path in paths]
    seen: dict[str, Tensor] = {}

    def keep(path: str, value: Any) -> None:
        first = value[0] if isinstance(value, tuple | list) and value else value
        if not isinstance(first, Tensor):
            raise ValueError(f"layer {path!r} gives a {type(value).__name__}, not a tensor; tap a layer within it")
        seen[path] = first.clone()

    def hook(path: str, module: nn.Module) -> Any:
        if inputs:
            return module.register_forward_pre_hook(lambda _, arguments: keep(path, arguments))
        return module.register_forward_hook(lambda _, arguments, output: keep(path, output))

    # What an earlier forward left must not pass for an output of this one.
    handles = [model.register_forward_pre_hook(lambda _, arguments: seen.clear())]
    try:
        handles += [hook(path, module) for path, module in zip(paths, modules, strict=True)]
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def require_layer(model: nn.Module, path: str, argument: str = "layer") -> nn.Module:
    """The submodule at a dotted path; ValueError that names the nearest if there is none."""
    modules = dict(model.named_modules())
    if path not in modules:
        raise ValueError(f"{argument}={path!r} is not in {_kind(model)}; {_nearest(path, modules)}")
    return modules[path]


def require_prefixes(model: nn.Module, prefixes: str | Sequence[str], argument: str = "prefixes") -> tuple[str, ...]:
    """The prefixes as a tuple; ValueError unless there are some, and each begins a parameter's name, dot by dot."""
    wanted = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes)
    if not wanted:
        raise ValueError(f"{argument} must name at least one layer or parameter; got none")
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for prefix in wanted:
        if not any(under(name, (prefix,)) for name in parameters):
            known = {".".join(name.split(".")[:end]) for name in parameters for end in range(1, name.count(".") + 2)}
            raise ValueError(
                f"{argument}: {prefix!r} begins no parameter's name in {_kind(model)}; {_nearest(prefix, known)}"
            )
    return wanted


def pooled(outputs: Tensor, pool: Pool = "mean") -> Tensor:
    """Rows (n, d) of maps (n, d, height, width), tokens (n, tokens, d) or rows; with "none" the outputs as they are."""
    if pool == "none" or outputs.ndim == 2:
        return outputs
    rows = outputs.transpose(1, 2) if outputs.ndim == 3 else outputs.flatten(2)
    return rows.mean(2) if pool == "mean" else rows.amax(2)


def under(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted name is one of the prefixes or lies below it: ``stage1`` holds ``stage1.0``, not ``stage10``."""
    return any(not prefix or name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def head_path(model: nn.Module) -> str:
    """Dotted path of the head: the linear layer that was registered last.

    A module that holds a linear layer as its ``base`` and has a ``delta`` to add to it (LoRA) counts as one.

    Raises:
        ValueError: if the model has no linear layer.
    """
    paths: list[str] = []
    for path, module in model.named_modules():
        layer = module.base if hasattr(module, "delta") and hasattr(module, "base") else module
        linear = isinstance(layer, nn.Linear) and not isinstance(layer, NonDynamicallyQuantizableLinear)
        if linear and not under(path, paths[-1:]):
            paths.append(path)
    if not paths:
        raise ValueError(f"{_kind(model)} has no linear layer that could be its head; name the layer that is meant")
    return paths[-1]


def blocks(model: nn.Module, within: str | Sequence[str] = ()) -> tuple[str, ...]:
    """The parts of a model that hold parameters, from input to head: dotted prefixes that together cover it.

    They are the model's children, in the order in which they were registered, which is almost always that of the
    forward. Parameters that no child holds (a class token) stand before the children.

    Args:
        model: any module.
        within: parts to be taken apart into their own children, such as ``"features"`` of a MobileNet.

    Raises:
        ValueError: if a part in ``within`` is not there, or nothing has parameters.
    """
    inner = (within,) if isinstance(within, str) else tuple(within)
    for path in inner:
        require_layer(model, path, "within")
    found = tuple(_blocks(model, "", set(inner)))
    if not found:
        raise ValueError(f"{_kind(model)} has no parameters, and so no blocks")
    return found


def _blocks(module: nn.Module, path: str, inner: set[str]) -> Iterator[str]:
    start = f"{path}." if path else ""
    yield from (start + name for name, _ in module.named_parameters(recurse=False))
    for name, child in module.named_children():
        if start + name in inner:
            yield from _blocks(child, start + name, inner)
        elif next(child.parameters(), None) is not None:
            yield start + name


def replaced(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """``model`` with another module at ``path``, changed in place; the module itself if the path is empty.

    A module that stands in several places is replaced in all of them.
    """
    if not path:
        return module
    old = model.get_submodule(path)
    for place in places_of(model, old):
        parent, _, name = place.rpartition(".")
        setattr(model.get_submodule(parent), name, module)
    return model


def places_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Every dotted path at which ``module`` stands."""
    return [path for path, found in model.named_modules(remove_duplicate=False) if found is module]


def _nearest(name: str, known: Iterable[str]) -> str:
    names = [candidate for candidate in known if candidate]
    near = difflib.get_close_matches(name, names, n=NEAREST, cutoff=0.4)
    return f"nearest: {', '.join(near)}" if near else f"it has {', '.join(names[:NEAREST]) or 'no named parts'}, ..."


def _kind(model: nn.Module) -> str:
    return type(model).__name__
