import json

import pytest
import torch

import kdutils as kd
from kdutils.live import LIVE_MIMETYPE
from tools.live_page import element


def test_a_figure_carries_its_numbers_and_a_picture_for_where_no_script_runs(blobs):
    data = blobs(n=12)
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    figure = kd.live.temperature(logits, data, torch.tensor([3, 5]), top=2)
    bundle = figure._repr_mimebundle_()
    content = json.loads(json.dumps(bundle[LIVE_MIMETYPE]))["content"]
    assert content["classes"] == ["a", "b", "c"]
    assert [sample["label"] for sample in content["samples"]] == [0, 2]
    torch.testing.assert_close(torch.tensor(content["samples"][1]["logits"]), logits[5], atol=1e-5, rtol=0)
    assert content["samples"][0]["picture"].startswith("data:image/png;base64,")
    assert len(bundle["image/png"]) > 1000


def test_colors_of_a_picture_stay():
    images = torch.zeros(1, 3, 4, 4)
    images[:, 0] = 1
    data = kd.Dataset(images, torch.zeros(1, dtype=torch.long), ("red",))
    figure = kd.live.temperature(torch.zeros(1, 1), data, [0], top=1)
    assert len(figure.content["samples"]) == 1


def test_what_cannot_be_shown_is_named(blobs):
    data = blobs(n=12)
    with pytest.raises(ValueError, match=r"logits must be \(12, 3\).*got \(11, 3\)"):
        kd.live.temperature(torch.zeros(11, 3), data, [0])
    with pytest.raises(ValueError, match="at least one labeled sample"):
        kd.live.temperature(torch.zeros(12, 3), data, [])


def test_no_text_in_the_numbers_ends_the_script_that_holds_them():
    made = element({"kind": "temperature", "content": {"classes": ["</script><b>", "&"]}})
    assert made.count("</script>") == 1
    assert json.loads(made.split(">", 2)[2].split("</script>")[0])["classes"] == ["</script><b>", "&"]
