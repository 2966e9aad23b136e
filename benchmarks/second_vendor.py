"""What transfers on the other vendor's emoji: the first comparison of that chapter, with Noto and Twemoji exchanged.

python -m benchmarks.second_vendor

The target is Twitter's drawings, and the small source Google's drawings of other kinds. Draws, seeds and functions are
those of the chapter, and so are the settings: they were chosen on Noto, and are not tuned again. The result goes to
``results/what-transfers/second_vendor.json``; a test holds what the chapter says of it to that.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import kdutils as kd
from benchmarks import settings, what_transfers
from tools.notebooks import ROOT

RESULTS = Path("results/what-transfers/second_vendor.json")
SHOWN = ("ImageNet", "pixels", "other vendor", "other vendor, probe", "from scratch")
THERE = what_transfers.THERE


def setting(name: str) -> tuple[Any, ...]:
    """What was chosen on Noto, where the other vendor is Twitter."""
    best = what_transfers.best(settings.read(ROOT / what_transfers.RESULTS))
    return tuple(best[f"emoji: {name.replace('other vendor', 'Twitter')}"]["setting"])


def other_kinds() -> tuple[list[Any], kd.Estimate]:
    """Networks trained on Google's other kinds, and their own accuracy; as the chapter trains those on Twitter's."""
    data = kd.data.emoji("noto", size=24, classes=THERE["other_kinds"]())
    draws = []
    for seed in range(10):
        train, test = data.split(0.8, 0.2, by="kin", seed=seed)
        draws.append({"train": train.subset(range(int(0.75 * len(data)))), "test": test})
    models = THERE["fresh_networks"](THERE["emoji_network"], len(data.classes))
    own = THERE["trained"]("own", models, THERE["standardized"](draws), rate=0.005, steps=100)
    return models, own


def measured() -> list[dict[str, Any]]:
    """The accuracies of each method on Twemoji, one for each draw."""
    pictures, small = (kd.data.emoji("twemoji", size=size) for size in (72, 24))
    seen, pixels = THERE["emoji_draws"](THERE["described"](pictures)), THERE["emoji_draws"](small)
    inputs, (models, own) = THERE["standardized"](pixels), other_kinds()
    starts = {
        "other vendor": THERE["with_new_heads"](models, 15),
        "from scratch": THERE["fresh_networks"](THERE["emoji_network"], 15),
    }
    found = {name: THERE["trained"](name, starts[name], inputs, *setting(name)) for name in starts}
    found["ImageNet"] = THERE["probed"]("ImageNet", seen, *setting("ImageNet"))
    found["pixels"] = THERE["probed"]("pixels", pixels, *setting("pixels"))
    probe = "other vendor, probe"
    found[probe] = THERE["probed_networks"](probe, models, inputs, *setting(probe))
    results = [{"method": name, "accuracies": list(found[name].values)} for name in SHOWN]
    return [*results, {"method": "own task", "accuracies": list(own.values)}]


def sentence(results: list[dict[str, Any]]) -> str:
    """What the chapter says of it."""
    known = {one["method"]: kd.Estimate(tuple(one["accuracies"]), one["method"], "accuracy") for one in results}

    def said(better: str, worse: str) -> str:
        return settings.points(known[better] - known[worse])

    return (
        f"The ImageNet network is then ahead of training from scratch by {said('ImageNet', 'from scratch')} points, "
        f"and of the classifier on pixels by {said('ImageNet', 'pixels')}. Google's other kinds change accuracy by "
        f"{said('other vendor', 'from scratch')} as a start, and by {said('other vendor, probe', 'pixels')} as "
        "features."
    )


def main() -> int:
    """Measure, and print the sentence."""
    results = measured()
    settings.write(results, ROOT / RESULTS)
    print(sentence(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
