import json
from pathlib import Path

import pytest
import torch
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from torch import Tensor

import kdutils as kd
from kdutils.evidence.seeds import FRESH
from kdutils.live import LIVE_MIMETYPE
from tests.live.reference import median_rule, relabelings, two_sample_test, witness_on_map
from tools.address import ROOT
from tools.live_page import element


def groups(n: int = 20, m: int = 18, shift: float = 1.5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, 2, generator=draw)
    return x, torch.randn(m, 2, generator=draw) * torch.tensor([1.0, 0.5]) + shift


def titles(figure: kd.live.Live) -> list[str]:
    return [panel.get_title().replace("\N{MINUS SIGN}", "-") for panel in figure.still.axes]


def test_a_figure_carries_points_relabelings_and_a_picture():
    x, y = groups()
    figure = kd.live.witness(x, y, names=("clean", "noisy"))
    bundle = figure._repr_mimebundle_()
    content = json.loads(json.dumps(bundle[LIVE_MIMETYPE]))["content"]
    assert bundle[LIVE_MIMETYPE]["kind"] == "witness"
    assert content["names"] == ["clean", "noisy"]
    for points, group in zip(content["points"], (x, y), strict=True):
        torch.testing.assert_close(torch.tensor(points), group, atol=1e-5, rtol=0)
    rows = relabelings(content)
    assert [len(row) for row in rows] == [20] * 199
    assert len({tuple(row.tolist()) for row in rows}) == 199
    assert torch.bincount(torch.cat(rows), minlength=38).min() > 60  # each point is in both groups about equally often
    assert len(element({"kind": figure.kind, "content": content}).encode()) < 3000
    assert len(bundle["image/png"]) > 1000


def test_the_bandwidth_is_the_median_rules_unless_one_is_given():
    x, y = groups(5, 4)
    points = torch.cat([x, y]).double().round(decimals=5)
    assert kd.live.witness(x, y).content["bandwidth"] == pytest.approx(median_rule(points), rel=1e-12)
    assert kd.live.witness(x, y, bandwidth=0.7).content["bandwidth"] == 0.7


@pytest.mark.parametrize("bandwidth", [None, 0.2, 5.0])
@pytest.mark.parametrize("sizes", [(20, 18), (7, 7), (2, 3)])
def test_the_still_figure_shows_the_statistic_and_its_p_value(bandwidth, sizes):
    x, y = groups(*sizes, shift=0.6)
    figure = kd.live.witness(x, y, bandwidth)
    content = figure.content
    a, b = (torch.tensor(points, dtype=torch.float64) for points in content["points"])
    moved = b + a.mean(dim=0) - b.mean(dim=0)
    for title, other in zip(titles(figure), (b, moved), strict=True):
        wanted = two_sample_test(content, a, other, content["bandwidth"])
        shown = dict(part.split(" = ") for part in title.split("\n")[1].split(", "))
        assert float(shown["MMD²"]) == pytest.approx(wanted["unbiased"], abs=6e-4)
        assert float(shown["p"]) == pytest.approx(wanted["p"], abs=6e-4)


def test_the_map_of_the_still_figure_is_blue_where_the_first_group_is_denser():
    x, y = groups()
    figure = kd.live.witness(x, y)
    a, b = (torch.tensor(points, dtype=torch.float64) for points in figure.content["points"])
    values = witness_on_map(figure.content, a, b, figure.content["bandwidth"])
    picture = torch.from_numpy(figure.still.axes[0].images[0].get_array().data.copy())
    assert torch.equal(picture[..., 2] > picture[..., 0], values > 0)
    strength = 1 - picture.amin(dim=2)  # the color's weakest part falls from 1 as the witness grows
    for side in (values > 0, values < 0):
        order = values[side].abs().argsort()
        assert (strength[side][order].diff() >= -1e-9).all()


def test_groups_far_apart_are_told_apart_and_equal_ones_are_not():
    x, y = groups(20, 20)
    apart, same = kd.live.witness(x, y + 4), kd.live.witness(x, x + 1e-3)
    assert titles(apart)[0].endswith("p = 0.005")
    assert float(titles(same)[0].split("p = ")[1]) > 0.9


def test_statistics_that_tie_count_as_reached():
    # Two groups that are each other's mirror image: swapping them changes nothing but rounding.
    x = torch.tensor([[0.0, 0.1], [0.0, 0.7]])
    figure = kd.live.witness(x, x + torch.tensor([3.0, 0.0]), permutations=999)
    swapped = {(0, 1), (2, 3)}
    share = sum(tuple(row.tolist()) in swapped for row in relabelings(figure.content))
    assert titles(figure)[0].endswith(f"p = {(1 + share) / 1000:.3f}")


def test_relabelings_follow_the_seed_and_a_repetition_has_others(monkeypatch):
    x, y = groups()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = kd.live.witness(x, y).content["members"]
    assert torch.equal(torch.get_rng_state(), before)
    assert kd.live.witness(x, y).content["members"] == first
    assert kd.live.witness(x, y, seed=1).content["members"] != first
    monkeypatch.setenv(FRESH, "1")
    assert kd.live.witness(x, y).content["members"] != first


def test_each_group_can_be_moved_onto_the_other_within_the_panel():
    x, y = groups(shift=6)
    left, right, bottom, top = kd.live.witness(x, y).content["extent"]
    assert right - left == pytest.approx(top - bottom)
    shift = x.mean(dim=0) - y.mean(dim=0)
    for points in (x, y, x - shift, y + shift):
        assert (points > torch.tensor([left, bottom])).all()
        assert (points < torch.tensor([right, top])).all()
    assert kd.live.witness(x, y, extent=(-9, 11, -8, 12)).content["extent"] == [-9, 11, -8, 12]


def test_what_does_not_fit_is_named():
    x, y = groups()
    for argument, message in (
        ({"x": x[:, :1]}, r"x must be a tensor \(points, 2\).*got \(20, 1\)"),
        ({"y": y[:1]}, r"y must be a tensor \(points, 2\) of at least two points.*got \(1, 2\)"),
        ({"y": [[0, 1], [1, 0]]}, r"y must be a tensor \(points, 2\).*got list"),
        ({"x": x / 0}, "x must be real and finite"),
        ({"bandwidth": -1}, r"bandwidth must be a positive finite number; got -1"),
        ({"bandwidth": 1000}, r"bandwidth must lie within a factor of 16 of the median rule's 1\.\d+; got 1000"),
        ({"permutations": 0}, "permutations must be at least 1; got 0"),
        ({"seed": 0.5}, "seed must be a whole number; got 0.5"),
        ({"names": ("P",)}, r"names must be two different texts.*\('P',\)"),
        ({"names": ("P", "P")}, "names must be two different texts"),
        ({"names": "PQ"}, "names must be two different texts"),
        ({"extent": (0, 1)}, r"extent must be four finite numbers.*got \(0, 1\)"),
        ({"extent": (-5, 5, -5, 6)}, "extent must be a square.*got 10 wide, 11 high"),
        ({"extent": (5, -5, 5, -5)}, "extent must be a square"),
        ({"extent": (0, 9, 0, 9)}, r"extent must hold all points; got \(0, 9, 0, 9\), and \d+ of them lie outside"),
        ({"x": x.new_zeros(20, 2), "y": x.new_zeros(3, 2)}, "x and y must differ.*half of all pairs coincide"),
    ):
        with pytest.raises(ValueError, match=message):
            kd.live.witness(**{"x": x, "y": y} | argument)


def test_only_pages_that_show_it_get_its_script(tmp_path: Path):
    source, built = tmp_path / "source", tmp_path / "built"
    source.mkdir()
    html = element({"kind": "witness", "content": kd.live.witness(*groups()).content})
    (source / "conf.py").write_text("extensions = ['tools.live_page']\n", encoding="utf-8")
    (source / "other.rst").write_text(":orphan:\n\nOther\n=====\n", encoding="utf-8")
    (source / "index.rst").write_text(f"Shown\n=====\n\n.. raw:: html\n\n   {html}\n", encoding="utf-8")
    static = {"html_static_path": [str(ROOT / "tools" / "static")]}
    Sphinx(source, source, built, tmp_path / "doctrees", "html", confoverrides=static, status=None).build()
    scripts = {}
    for page in ("index", "other"):
        soup = BeautifulSoup((built / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
        sources = [Path(script["src"].split("?")[0]).name for script in soup.select("script[src]")]
        scripts[page] = [name for name in sources if name.startswith("live")]
    assert scripts == {"index": ["live.js", "live_witness.js"], "other": ["live.js"]}
    assert (built / "_static" / "live_witness.js").exists()
