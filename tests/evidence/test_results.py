"""Records of runs: written whole, read back, set beside what was published."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

import kdutils as kd
from kdutils.command import machine
from kdutils.evidence import results
from kdutils.evidence.results import Record


def record(seed: int = 0, accuracy: float = 0.7, recipe: str = "pair", **fields: object) -> Record:
    return Record(recipe, seed, {"accuracy": accuracy}, **fields)


def test_a_record_comes_back_as_it_was_written(tmp_path):
    epochs = [{"loss": 1.0, "seconds": 0.1}, {"loss": 0.5, "seconds": 0.1}]
    one = record(epochs=epochs, classes=["ä", "b"], published={"accuracy": 0.69}, changed={"fit.epochs": 2})
    results.write(one, tmp_path)
    assert results.read("pair", tmp_path) == [one]
    assert results.read_folder(results.folder("pair", 0, tmp_path)) == one


def test_records_come_in_the_order_of_their_seeds(tmp_path):
    for seed in (10, 2, 0):
        results.write(record(seed), tmp_path)
    assert [found.seed for found in results.read("pair", tmp_path)] == [0, 2, 10]
    assert results.recorded(tmp_path) == ["pair"]


def test_a_recipe_that_never_ran_has_no_records(tmp_path):
    assert results.read("pair", tmp_path) == []
    assert results.read("pair", tmp_path / "nowhere") == []


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    results.write(record(accuracy=0.5), tmp_path)
    with pytest.raises(ValueError, match="Out of range float"):
        results.write(record(accuracy=float("nan")), tmp_path)
    assert results.read("pair", tmp_path)[0].accuracy == 0.5
    assert [path.name for path in results.folder("pair", 0, tmp_path).iterdir()] == ["record.json"]


def test_what_a_later_version_adds_to_a_record_is_passed_over(tmp_path):
    path = results.write(record(), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mood": "good"}))
    assert results.read("pair", tmp_path) == [record()]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"recipe": "x", "seed": 0, "test": {}}', '"x"'])
def test_a_file_that_is_no_record_is_named(tmp_path, content):
    path = results.write(record(), tmp_path)
    path.write_text(content)
    with pytest.raises(ValueError, match=r"record\.json is not a record of a run"):
        results.read("pair", tmp_path)


def test_an_environment_variable_names_the_folder_unless_one_is_given(tmp_path, monkeypatch):
    assert results.results_folder().name == "results"
    monkeypatch.setenv("KDUTILS_RESULTS", str(tmp_path))
    results.write(record())
    assert (tmp_path / "pair" / "seed-0" / "record.json").is_file()
    assert results.results_folder("elsewhere").name == "elsewhere"


def rows(table: kd.Table) -> list[dict[str, str]]:
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_the_table_sets_mean_and_interval_beside_the_published_number(tmp_path):
    for seed, accuracy in enumerate((0.70, 0.71, 0.72)):
        results.write(record(seed, accuracy, published={"accuracy": 0.7066, "epoch": "last"}), tmp_path)
    (row,) = rows(results.table(root=tmp_path))
    # Student's t for two degrees of freedom is 4.303; the deviation is one point: 4.303 / sqrt(3) = 2.48 points.
    assert row["accuracy"] == "71.00 % [68.52, 73.48]"
    assert row["published"] == "70.66 % (last epoch)"
    assert row["difference"] == "+0.34 points"
    assert row["seeds"] == "3"


def test_one_seed_has_no_interval(tmp_path):
    results.write(record(accuracy=0.5), tmp_path)
    (row,) = rows(results.table(["pair"], tmp_path))
    assert row["accuracy"] == "50.00 %"
    assert row["difference"] == ""


def test_runs_that_were_changed_have_a_row_of_their_own_and_say_so(tmp_path):
    results.write(record(0, 0.7), tmp_path)
    results.write(record(1, 0.1, changed={"fit.epochs": 1}), tmp_path)
    results.write(record(2, 0.2, teacher={"checksum": "0", "changed": {"fit.epochs": 3}}), tmp_path)
    found = {row["remarks"]: row["accuracy"] for row in rows(results.table(root=tmp_path))}
    assert found == {
        "": "70.00 %",
        "fit.epochs = 1": "10.00 %",
        "teacher with fit.epochs = 3": "20.00 %",
    }


def test_best_epochs_are_shown_beside_a_paper_that_reports_them_and_never_instead_of_the_last(tmp_path):
    best = {"epoch": 3, "accuracy": 0.75}
    results.write(record(accuracy=0.74, best_epoch=best, published={"accuracy": 0.7631, "epoch": "best"}), tmp_path)
    (row,) = rows(results.table(root=tmp_path))
    assert row["accuracy"] == "74.00 %"
    assert row["remarks"] == "best epochs 75.00 %"


def test_a_table_of_a_recipe_without_records_is_refused(tmp_path):
    with pytest.raises(ValueError, match="recipe 'pair' has no records in"):
        results.table(["pair"], tmp_path)


# The machine


def test_the_commit_is_that_of_this_code(tmp_path):
    found = machine.commit()
    if found is None:
        pytest.skip("not a git repository")
    head = subprocess.run(
        ["git", "-C", str(machine.PACKAGE), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert found["commit"] == head.stdout.strip()
    assert isinstance(found["changed since"], bool)


def test_a_copy_inside_another_repository_has_no_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    copy = tmp_path / "site-packages" / "kdutils"
    copy.mkdir(parents=True)
    (copy / "__init__.py").touch()
    monkeypatch.setattr(machine, "PACKAGE", copy)
    assert machine.commit() is None


def test_a_machine_without_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert machine.commit() is None


def test_peak_memory_sees_what_was_allocated_since_the_reset_and_no_more():
    device = torch.device("cpu")
    large = torch.ones(64 * 2**20)
    with_large = machine.peak_memory(device).get("process")
    if with_large is None:
        pytest.skip("this system does not say")
    del large
    machine.reset_peak_memory()
    after = machine.peak_memory(device)["process"]
    if after > with_large - 100 * 2**20:
        pytest.skip("this system cannot reset it")
    again = torch.ones(64 * 2**20)
    assert machine.peak_memory(device)["process"] >= after + 200 * 2**20
    assert len(again)


def test_versions_and_hardware_say_nothing_of_who_or_where():
    import getpass
    import platform

    text = json.dumps([machine.versions(), machine.hardware(torch.device("cpu"))])
    assert platform.node() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
    assert machine.versions()["torch"] in torch.__version__


def test_runs_of_other_settings_are_no_seeds_of_one_another(tmp_path):
    for seed, epochs in enumerate((200, 200, 20)):
        results.write(
            record(seed, 0.7 + 0.1 * seed, settings={"fit": {"epochs": epochs, "optimizer": "sgd"}}), tmp_path
        )
    rows = results.table(root=tmp_path).rows
    assert [(row[1], row[-1]) for row in rows] == [("2", "fit.epochs = 200"), ("1", "fit.epochs = 20")]
