"""The settings and the table of the chapter on intermediate knowledge are those on record."""

import pytest

from benchmarks import intermediate_knowledge as benchmark
from benchmarks import settings
from kdutils.command.recipe import load
from tools import notebooks
from tools.notebooks import ROOT

CHOSEN = settings.read(ROOT / benchmark.RESULTS)
RECORD = settings.read(ROOT / benchmark.RECORD)
TIMES = settings.read(ROOT / benchmark.TIMES)
CELLS = notebooks.read(benchmark.CHAPTER).cells
PROSE = "\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
CODE = "\n".join(cell.source for cell in CELLS if cell.cell_type == "code")


@pytest.mark.parametrize("method", benchmark.METHODS)
def test_every_grid_was_grown_until_its_best_lay_inside(method):
    assert benchmark.following(method, CHOSEN) is None
    assert {len(one["accuracies"]) for one in CHOSEN} == {benchmark.DRAWS}


@pytest.mark.parametrize("method", benchmark.METHODS)
def test_what_is_reported_was_measured_with_what_was_chosen_on_other_draws(method):
    chosen = benchmark.best(CHOSEN)[method]
    (row,) = [one for one in RECORD if one["method"] == method]
    assert (row["value"], row["rate"]) == (chosen["value"], chosen["rate"])
    assert row["passes"] == benchmark.passes_of(chosen)
    assert len(row["accuracy"]) == benchmark.SEEDS < benchmark.FIRST_SEED


def test_labels_alone_were_trained_until_more_passes_did_not_help():
    chosen = benchmark.best(CHOSEN)["labels"]
    longer = [one for one in CHOSEN if one["method"] == "labels" and one["passes"] > chosen["passes"]]
    assert longer
    few = benchmark.TIE * benchmark.DRAWS
    assert all(sum(one["accuracies"]) <= sum(chosen["accuracies"]) + few for one in longer)


def test_the_table_of_the_chapter_is_the_record():
    assert benchmark.table(RECORD, TIMES) in PROSE
    assert benchmark.weights(CHOSEN) in PROSE
    assert {one["method"] for one in RECORD} == {"teacher", *benchmark.METHODS}
    assert {one["method"] for one in TIMES} == set(benchmark.METHODS)


def test_what_the_chapter_says_of_the_table_is_so():
    gains = {
        method: benchmark.estimate(RECORD, method) - benchmark.estimate(RECORD, "labels")
        for method in benchmark.METHODS
        if method != "labels"
    }
    soft = benchmark.estimate(RECORD, "soft targets")
    behind = [method for method in gains if method != "soft targets"]
    assert gains["soft targets"].low > 0
    assert all((soft - benchmark.estimate(RECORD, method)).low > 0 for method in behind)
    text = " ".join(PROSE.split())
    assert [one for one in benchmark.sentences(RECORD, CHOSEN) if one not in text] == []
    hints = [gains[name] for name in gains if name.startswith("hints")]
    assert max(one.low for one in hints) < min(one.mean for one in hints), "their intervals overlap"
    labels = next(one for one in CHOSEN if one["method"] == "labels" and one["passes"] == benchmark.PASSES)
    last = [row.split("|")[-2] for row in benchmark.weights(CHOSEN).splitlines()[2:]]
    assert all(float(cell.strip(" %")) < 100 * sum(labels["accuracies"]) / benchmark.DRAWS for cell in last)


def test_what_the_chapter_says_of_published_numbers_is_so():
    students = ("wrn-16-2", "wrn-40-1", "resnet20", "resnet32", "resnet8x4", "vgg8", "mobilenetv2")

    def behind(method):
        pairs = [(f"cifar100-{one}-{method}", f"cifar100-{one}-soft-targets") for one in students]
        return sum(load(ours).published["accuracy"] < load(soft).published["accuracy"] for ours, soft in pairs)

    counts = {method: behind(method) for method in ("hints", "attention-transfer", "rkd", "crd")}
    assert counts == {"hints": 6, "attention-transfer": 6, "rkd": 7, "crd": 0}


def test_the_settings_were_chosen_by_the_code_of_the_chapter_and_it_trains_with_them():
    for name in benchmark.TAKEN:
        assert CODE.count(f"def {name}(") == 1, name
        assert benchmark.THERE[name].__code__.co_filename == str(benchmark.CHAPTER), name
    chosen = benchmark.best(CHOSEN)["attention transfer"]
    assert f"AttentionTransfer(student(), teacher, few, weight={chosen['value']:.0f})" in CODE
    assert f'"epochs": {benchmark.PASSES}, "learning_rate": {chosen["rate"]}, "augment"' in CODE
    assert benchmark.best(CHOSEN)["labels"]["rate"] == chosen["rate"]
