import base64
from typing import Any

import numpy as np
import pytest
import torch

from kdutils.live.cloud import LEVELS, MOST_CLASSES, cloud_of
from kdutils.live.curves import INKS, MARKERS


def groups(classes: bool = False, settings: int = 3) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)

    def points(shift: float) -> torch.Tensor:
        places = torch.randn(20, 2, generator=draw) + shift
        return torch.cat([places, torch.randint(0, 4, (20, 1), generator=draw)], dim=1) if classes else places

    return [{"source": points(0.0), "target": points(3.0 - place)} for place in range(settings)]


def read(text: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of the panel, and classes."""
    written = base64.b64decode(text)
    return np.frombuffer(written[: 4 * count], "<u2").reshape(count, 2) / LEVELS, np.frombuffer(
        written[4 * count :], "u1"
    )


@pytest.mark.parametrize("classes", [False, True])
def test_what_is_written_gives_the_points_back(classes):
    given = groups(classes)
    cloud = cloud_of(given, 3, None)
    content = cloud.content()
    left, right, bottom, top = cloud.extent
    for setting, written in zip(given, content["settings"], strict=True):
        for name, text in zip(content["groups"], written, strict=True):
            places, numbers = read(text, 20)
            wanted = setting[name].double().numpy()
            span = np.array([right - left, top - bottom])
            np.testing.assert_allclose(places * span + [left, bottom], wanted[:, :2], atol=span[0] / LEVELS)
            assert numbers.tolist() == (wanted[:, 2].tolist() if classes else [])


def test_one_square_holds_the_points_of_all_settings():
    given = groups()
    given[1]["target"] = given[1]["target"] + torch.tensor([50.0, 0.0])
    left, right, bottom, top = cloud_of(given, 3, None).extent
    every = torch.cat([points for setting in given for points in setting.values()])
    assert right - left == pytest.approx(top - bottom)
    assert (every > torch.tensor([left, bottom])).all()
    assert (every < torch.tensor([right, top])).all()


def test_a_single_place_has_a_panel_too():
    left, right, _, _ = cloud_of([{"source": torch.ones(1, 2)}], 1, None).extent
    assert left < 1 < right


def test_classes_are_numbered_unless_they_have_names():
    assert cloud_of(groups(), 3, None).classes == []
    assert cloud_of(groups(True), 3, None).classes == ["class 0", "class 1", "class 2", "class 3"]
    assert cloud_of(groups(True), 3, ("a", "b", "c", "d", "e")).classes == ["a", "b", "c", "d", "e"]


def test_numpy_and_tensors_that_carry_gradients_are_read_alike():
    given = groups()
    other = [{name: points.numpy() for name, points in setting.items()} for setting in given]
    learned = [{name: points.clone().requires_grad_() for name, points in setting.items()} for setting in given]
    wanted = cloud_of(given, 3, None).content()
    assert cloud_of(other, 3, None).content() == wanted
    assert cloud_of(learned, 3, None).content() == wanted


def test_each_class_has_a_color_and_each_group_a_marker():
    assert len({*INKS}) == len(INKS) == MOST_CLASSES
    assert len({*MARKERS}) == 4


def changed(place: int, name: str, points: Any, classes: bool = False) -> list[dict[str, Any]]:
    given = groups(classes)
    given[place] = given[place] | {name: points}
    return given


@pytest.mark.parametrize(
    ("cloud", "names", "message"),
    [
        (groups()[:2], None, "cloud must have one dictionary of points for each of 3 settings; got 2"),
        ([torch.zeros(5, 2)] * 3, None, "cloud must be dictionaries from one to 4 names to points"),
        ([{str(group): torch.zeros(1, 2) for group in range(5)}] * 3, None, "from one to 4 names"),
        (
            changed(2, "other", torch.zeros(1, 2)),
            None,
            r"same names at each setting; cloud\[0\] has \['source', 'target'\], cloud\[2\] has .*'other'",
        ),
        (changed(1, "target", torch.zeros(381, 2)), None, r"cloud\[1\] must have 1 to 400 points; got 401: draw some"),
        (changed(1, "target", torch.zeros(3, 4)), None, r"cloud\[1\]\['target'\] must be real.*got \(3, 4\)"),
        (changed(1, "target", torch.zeros(3)), None, r"cloud\[1\]\['target'\] must be real.*got \(3,\)"),
        (changed(1, "target", torch.zeros(3, 2) / 0), None, r"cloud\[1\]\['target'\] must be finite"),
        (changed(1, "target", torch.zeros(3, 3)), None, "cloud must have classes.*for all points or for none"),
        (changed(0, "target", torch.full((3, 3), 10.0), True), None, "numbers of classes from 0 to 9.*got 0 to 10"),
        (changed(0, "target", torch.full((3, 3), -1.0), True), None, "numbers of classes from 0 to 9.*got -1 to 3"),
        (changed(0, "target", torch.full((3, 3), 0.5), True), None, "numbers of classes from 0 to 9"),
        (groups(), ("a", "b"), "names are those of the classes in the third column"),
        (groups(True), ("a", "b", "c"), r"names must be 4 to 10 different texts.*\('a', 'b', 'c'\)"),
        (groups(True), ("a", "b", "c", "a"), "names must be 4 to 10 different texts"),
    ],
)
def test_points_that_do_not_fit_are_named(cloud, names, message):
    with pytest.raises(ValueError, match=message):
        cloud_of(cloud, 3, names)
