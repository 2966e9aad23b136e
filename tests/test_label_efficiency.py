"""The program that measures accuracy against the number of labels, on a folder of a few small pictures."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("efficientnet_lite_pytorch", reason="the backbone is an optional extra")
torchvision = pytest.importorskip("torchvision")

from benchmarks import label_efficiency  # noqa: E402


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Bright and dark noise, eight pictures of each for training and four for the test."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 8), ("test", 4)):
        for name, low in (("bright", 200), ("dark", 20)):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(low, low + 32, (3, 8, 8), generator=generator, dtype=torch.uint8)
                torchvision.io.write_png(pixels, str(folder / f"{number}.png"))
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_efficiency, "STEPS", 2)
    monkeypatch.setattr(label_efficiency, "LEAST_EPOCHS", 1)


def measure(pictures: Path, out: Path, *more: str) -> int:
    options = ["--labels", "1,4", "--seeds", "2", "--size", "32", "--pixels", "8", "--out", str(out), *more]
    return label_efficiency.main([str(pictures), *options])


def test_every_method_is_measured_once_for_every_number_of_labels_and_seed(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "record.json"
    measure(pictures, out)
    record = json.loads(out.read_text())
    wanted = {(m, k, s) for m in label_efficiency.METHODS for k in (1, 4) for s in (0, 1)}
    assert {(one["method"], one["labels"], one["seed"]) for one in record["results"]} == wanted
    assert len(record["results"]) == len(wanted)
    assert record["settings"] == {"data": "pictures", "pixels": 8, "size": 32, "tested": 8}
    probes = [o["accuracy"] for o in record["results"] if o["method"] == "probe" and o["labels"] == 4]
    assert min(probes) > 0.9  # bright and dark are not hard to tell apart
    assert capsys.readouterr().out.count("|") == 5 * 4


def test_a_second_run_measures_only_what_is_missing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "record.json"
    measure(pictures, out, "--methods", "probe")
    first = json.loads(out.read_text())["results"]
    monkeypatch.setitem(label_efficiency.METHODS, "probe", lambda *_: pytest.fail("measured again"))
    measure(pictures, out, "--methods", "probe,from scratch")
    both = json.loads(out.read_text())["results"]
    assert both[: len(first)] == first
    assert {one["method"] for one in both[len(first) :]} == {"from scratch"}


def test_results_of_other_pictures_are_not_mixed_in(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "record.json"
    measure(pictures, out, "--methods", "probe")
    before = out.read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        measure(pictures, out, "--methods", "probe", "--tested", "4")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "choose another --out" in error
    assert out.read_bytes() == before


def test_an_unknown_method_is_refused(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        measure(pictures, tmp_path / "record.json", "--methods", "prob")
    assert "unknown: prob" in capsys.readouterr().err


def test_results_of_another_recipe_are_not_mixed_in(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "record.json"
    measure(pictures, out, "--methods", "probe")
    monkeypatch.setattr(label_efficiency, "STEPS", 3)
    with pytest.raises(SystemExit):
        measure(pictures, out, "--methods", "probe")
    assert "choose another --out" in capsys.readouterr().err


def test_each_result_names_the_circumstances_that_it_was_measured_in(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "record.json"
    for commit, methods in (("a", "probe"), ("b", "probe,from scratch"), ("a", "probe,from scratch,fine-tuned")):
        monkeypatch.setattr(label_efficiency.machine, "commit", lambda *folders, commit=commit: {"commit": commit})
        measure(pictures, out, "--methods", methods)
    record = json.loads(out.read_text())
    assert [one["commit"] for one in record["circumstances"]] == [{"commit": "a"}, {"commit": "b"}]
    assert all(set(one) == {"commit", "versions", "hardware"} for one in record["circumstances"])
    measured = {(one["method"], one["circumstances"]) for one in record["results"]}
    assert measured == {("probe", 0), ("from scratch", 1), ("fine-tuned", 0)}


def test_the_program_itself_counts_as_code_that_may_have_changed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(label_efficiency.machine, "_git", lambda *arguments: asked.append(arguments) or "")
    measure(pictures, tmp_path / "record.json", "--methods", "probe")
    status = next(arguments for arguments in asked if arguments[0] == "status")
    assert str(Path(label_efficiency.__file__).parent) in status


def test_without_a_file_the_record_is_named_after_what_was_measured(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--labels", "1", "--seeds", "1", "--size", "32", "--pixels", "8", "--methods", "probe"]
    for more in ([], ["--tested", "4"]):
        assert label_efficiency.main([str(pictures), *options, *more]) == 0
    names = {path.name for path in (tmp_path / "results" / "label-efficiency").iterdir()}
    assert names == {"pictures-32-8.json", "pictures-32-4.json"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "33"], "33"),
        (["--labels", "100"], "100"),
        (["--device", "gpu"], "device='gpu' is not known"),
        (["--out", "record-of-something.json"], "lacks circumstances, recipe, results, settings; choose another --out"),
        (["--seeds", "0"], "invalid whole_number value: '0'"),
    ],
)
def test_a_mistake_is_an_error_of_one_line(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    more: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("record-of-something.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        measure(pictures, tmp_path / "record.json", "--methods", "probe", *more)
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in last
    assert message in last


def test_a_folder_that_is_not_there_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        measure(tmp_path / "nowhere", tmp_path / "record.json")
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_table_in_the_readme_is_that_of_the_record() -> None:
    root = Path(label_efficiency.__file__).parents[1]
    record = json.loads((root / "results/label-efficiency/cifar10.json").read_text(encoding="utf-8"))
    text = (root / "benchmarks/README.md").read_text(encoding="utf-8")
    assert label_efficiency.table(record["results"]) in text
    assert {one["circumstances"] for one in record["results"]} == set(range(len(record["circumstances"])))
