"""The settings that chapters state are those that were chosen on validation data, by the code of the chapter."""

import ast
import importlib.util
import json
import re
from statistics import mean

import pytest
import torch

import kdutils as kd
from benchmarks import (
    adversarial,
    alignment,
    alignment_pairs,
    feature_extraction,
    few_shot,
    few_shot_scripts,
    fine_tuning,
    label_efficiency,
    pruning,
    pruning_resnet,
    second_vendor,
    settings,
    small_data,
    soft_targets,
    what_transfers,
)
from tools import notebooks
from tools.notebooks import ROOT


def cells(path, kind):
    """All cells of a kind of a chapter, as one text."""
    return "\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == kind)


CODE = cells(soft_targets.CHAPTER, "code")
PROSE = cells(soft_targets.CHAPTER, "markdown")


@pytest.mark.parametrize(
    "script",
    [
        soft_targets,
        adversarial,
        alignment,
        pruning,
        few_shot,
        feature_extraction,
        fine_tuning,
        small_data,
        what_transfers,
    ],
)
def test_the_settings_were_chosen_by_the_code_of_the_chapter(script):
    """Each name is a function of the chapter, once."""
    code = cells(script.CHAPTER, "code")
    for name in script.TAKEN:
        assert code.count(f"def {name}(") == 1, name
        assert script.THERE[name].__code__.co_filename == str(script.CHAPTER), name


def test_the_table_of_settings_is_the_record():
    assert soft_targets.table(settings.read(ROOT / soft_targets.RESULTS)) in PROSE
    runs = {soft_targets.key(result) for result in settings.read(ROOT / soft_targets.RESULTS)}
    assert runs == set(soft_targets.grid(5))


def test_the_chapter_trains_with_the_best_settings():
    best = soft_targets.best(settings.read(ROOT / soft_targets.RESULTS))
    trials = re.findall(r'"([^"]+)": trial\("(\w+)", (\w+), epochs=(\d+), rate=([\d.]+)\)', CODE)
    assert len(trials) == 3
    for name, part, _, epochs, rate in trials:
        batches = {"labeled": 3, "pool": 8}[part]  # of 64 pictures
        assert float(rate) == best[name]["rate"]
        assert abs(int(epochs) * batches - best[name]["steps"]) < batches
    assert "def soft(data, temperature=1.0)" in CODE
    assert best["soft targets, all pictures"]["temperature"] == 1
    assert "return soft(data, temperature=2.0)" in CODE
    assert best["soft targets, labeled pictures"]["temperature"] == 2


def test_numbers_in_the_text_are_those_of_the_record():
    best = soft_targets.best(settings.read(ROOT / soft_targets.RESULTS))
    shown = {name: f"{100 * one['validation accuracy']:.1f}" for name, one in best.items()}
    assert f"reached {shown['labels for all pictures']} % on validation pictures" in " ".join(PROSE.split())
    assert f"with the teacher, it reached {shown['soft targets, all pictures']} %" in " ".join(PROSE.split())
    hard, soft = shown["hard answers, all pictures"], shown["soft targets, all pictures"]
    assert f"in the table of settings, {hard} against {soft} %" in " ".join(PROSE.split())


ALIGNED_CODE = cells(alignment.CHAPTER, "code")
ALIGNED_RESULTS = settings.read(ROOT / alignment.RESULTS)


def test_the_table_of_alignment_is_the_record():
    prose = cells(alignment.CHAPTER, "markdown")
    assert alignment.table(ALIGNED_RESULTS) in prose
    assert [alignment.key(one) for one in ALIGNED_RESULTS] == alignment.grid()
    assert {len(one["accuracies"]) for one in ALIGNED_RESULTS} == {5}


def test_the_chapter_on_alignment_trains_with_the_best_settings():
    best = alignment.best(ALIGNED_RESULTS)
    trials = re.findall(r'"([^"]+)": trial\("[^"]+", (\w+), (?:passes=)?(\d+), (?:rate=)?([\d.]+)', ALIGNED_CODE)
    of = {"labels": "source only", "mmd": "MMD", "coral": "Deep CORAL", "jdot": "DeepJDOT", "no_term": "DeepJDOT"}
    assert len(trials) == 10
    for name, objective, epochs, rate in trials:
        assert (int(epochs), float(rate)) == (best[of[objective]]["epochs"], best[of[objective]]["rate"]), name
    assert f"def mmd(data, weight={best['MMD']['value']})" in ALIGNED_CODE
    assert f"def coral(data, weight={best['Deep CORAL']['value']})" in ALIGNED_CODE
    assert f"def jdot(data, alpha={best['DeepJDOT']['value']})" in ALIGNED_CODE


def test_the_table_of_other_pairs_is_the_record():
    results = settings.read(ROOT / alignment_pairs.RESULTS)
    prose = cells(alignment.CHAPTER, "markdown")
    assert alignment_pairs.table(results) in prose
    assert [one["pair"] for one in results] == list(alignment_pairs.PAIRS)
    means = [{name: sum(values) for name, values in one["accuracies"].items()} for one in results]
    assert all(min(one, key=one.__getitem__) == "source only" for one in means), "all distances helped on all pairs"
    assert [max(one, key=one.__getitem__) for one in means].count("DeepJDOT") == 3


GAME_CODE = cells(adversarial.CHAPTER, "code")
GAME_PROSE = cells(adversarial.CHAPTER, "markdown")
GAME_RESULTS = settings.read(ROOT / adversarial.RESULTS)
GAME_RECORD = settings.read(ROOT / adversarial.RECORD)


def test_the_tables_of_adversarial_adaptation_are_the_records():
    assert adversarial.chosen_table(GAME_RESULTS) in GAME_PROSE
    assert adversarial.table(GAME_RECORD) in GAME_PROSE
    assert [adversarial.key(one) for one in GAME_RESULTS] == adversarial.grid()
    assert [one["pair"] for one in GAME_RECORD] == list(adversarial.PAIRS)
    for one in GAME_RECORD:
        assert {len(values) for values in one["accuracies"].values()} == {adversarial.SEEDS}
        assert set(one["accuracies"]) == set(adversarial.ORDER)


def test_the_chapter_on_adversarial_adaptation_trains_with_the_best_settings():
    best = adversarial.best(GAME_RESULTS, "print → handwriting")
    (stated,) = re.findall(r"SETTINGS = (\{.+?\})", GAME_CODE, re.DOTALL)
    assert ast.literal_eval(stated) == {
        name: (best[name]["epochs"], best[name]["rate"], best[name]["weight"])
        for name in ("source only", "DANN", "CDAN")
    }


def test_what_the_chapter_on_adversarial_adaptation_says_of_its_records_is_there():
    known = {
        one["pair"]: {name: kd.Estimate(tuple(values)) for name, values in one["accuracies"].items()}
        for one in GAME_RECORD
    }
    for pair in ("Noto → Twemoji", "Twemoji → Noto"):
        one = known[pair]
        for method in ("DANN", "CDAN"):
            assert 0.015 < (one[method] - one["adaptive BatchNorm"]).mean < 0.03
        assert (one["MCD"] - one["adaptive BatchNorm"]).mean < 0.015
        assert one["DeepJDOT"].mean > max(one[name].mean for name in ("ADDA", "DANN", "CDAN", "MCD"))
    assert all((one["ADDA"] - one["adaptive BatchNorm"]).low < 0 for one in known.values())
    assert abs(known["print → handwriting"]["DeepJDOT"].mean - known["print → handwriting"]["CDAN"].mean) < 0.01

    def share(pair, method):
        low, high = known[pair]["source only"].mean, known[pair]["target labels"].mean
        return (known[pair][method].mean - low) / (high - low)

    assert share("Noto → Twemoji", "DeepJDOT") == pytest.approx(0.5, abs=0.08)
    assert share("print → handwriting", "CDAN") == pytest.approx(1 / 3, abs=0.05)
    uneven = settings.read(ROOT / adversarial.UNEVEN)
    assert adversarial.uneven_table(uneven) in GAME_PROSE
    rare = {one["method"]: kd.Estimate(tuple(one["uneven"])) for one in uneven}
    for method in ("DANN", "CDAN", "MCD"):
        gain = rare[method] - rare["adaptive BatchNorm"]
        assert gain.low < 0 < gain.high
    assert mean(uneven[1]["equal"]) - rare["DANN"].mean == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("pair", adversarial.CHOSEN_ON)
def test_no_setting_of_adversarial_adaptation_was_decided_at_the_edge_of_its_grid(pair):
    for method, chosen in adversarial.best(GAME_RESULTS, pair).items():
        mine = [one for one in GAME_RESULTS if (one["pair"], one["method"]) == (pair, method)]
        for field in ("rate", "weight") if chosen["weight"] and method != "ADDA" else ("rate",):
            tried = sorted({one[field] for one in mine})
            top = {value: max(mean(one["accuracies"]) for one in mine if one[field] == value) for value in tried}
            best = max(tried, key=top.__getitem__)
            if best == tried[-1] or best == tried[0]:
                inner = max(top[value] for value in tried if value != best)
                assert top[best] - inner < adversarial.TIE, (pair, method, field, top)


EPISODES_CODE = cells(few_shot.CHAPTER, "code")
EPISODES_RESULTS = settings.read(ROOT / few_shot.SETTINGS)


def test_the_table_of_few_shot_is_the_record():
    prose = cells(few_shot.CHAPTER, "markdown")
    assert few_shot.table(EPISODES_RESULTS) in prose
    assert sorted(map(few_shot.key, EPISODES_RESULTS)) == sorted(few_shot.grid())
    assert {len(one[f"accuracies {shots}"]) for one in EPISODES_RESULTS for shots in few_shot.SHOTS} == {5}


def test_the_chapter_on_learning_to_learn_trains_with_the_best_settings():
    best = few_shot.best(EPISODES_RESULTS)
    trials = re.findall(r'"(\w+)": (?:trial|baseline)\(draws, shots,(?: (\w+),)? rate=([\d.]+)(.*)\)', EPISODES_CODE)
    assert [name for name, *_ in trials] == ["MAML", "FOMAML", "ANIL", "Reptile", "ProtoNet", "classifier"]
    for name, objective, rate, more in trials:
        dial, value = few_shot.METHODS[name][1], best[name]["value"]
        assert float(rate) == best[name]["rate"], name
        if dial == "inner rate":
            assert f"def {objective}(data, rate={float(value)})" in EPISODES_CODE
        else:
            assert more == f", {dial.replace(' ', '_')}={value}"


def test_the_long_table_of_few_shot_is_the_record():
    prose = cells(few_shot.CHAPTER, "markdown")
    record = settings.read(ROOT / few_shot.RECORD)
    assert few_shot.record_table(record) in prose
    assert {(one["ways"], one["shots"]) for one in record} == set(few_shot.TASKS)
    assert {len(one[name]) for one in record for name in ("accuracy", "over episodes")} == {few_shot.SEEDS}
    found = {(one["method"], one["ways"], one["shots"]): tuple(one["accuracy"]) for one in record}
    for method, *task in found:
        gain = kd.Estimate(found[method, *task]) - kd.Estimate(found[few_shot.RAW, *task])
        if method != few_shot.RAW and task != [5, 1]:
            assert gain.high < 0, "with five shots, and with 20 ways, all six are behind"
        elif method == "MAML":
            assert gain.low < 0 < gain.high, "with one shot and 5 ways, MAML cannot be told apart"


LETTERS = settings.read(ROOT / few_shot_scripts.RESULTS)


def test_the_table_of_held_out_scripts_is_the_record():
    prose = cells(few_shot.CHAPTER, "markdown")
    assert few_shot_scripts.table(LETTERS) in prose
    record = [one for one in LETTERS if one["part"] == "record"]
    assert {len(one[name]) for one in record for name in ("accuracy", "over episodes")} == {few_shot_scripts.SEEDS}
    assert few_shot_scripts.finished(LETTERS) == list(few_shot_scripts.TASKS)


def test_sentences_on_held_out_scripts_are_the_record():
    record = [one for one in LETTERS if one["part"] == "record"]
    found = {(one["method"], one["ways"], one["shots"]): kd.Estimate(tuple(one["accuracy"])) for one in record}
    classifiers = [name for name, (kind, *_) in few_shot_scripts.METHODS.items() if kind == "classifier"]
    for task in few_shot_scripts.finished(LETTERS):
        for name in few_shot_scripts.METHODS:
            gain = found[name, *task] - found[few_shot_scripts.PIXELS, *task]
            ahead = name not in (few_shot_scripts.PIXELS, "FOMAML") or (name, task) == ("FOMAML", (5, 1))
            assert (gain.low > 0) == ahead, (name, task)
        for name in classifiers:
            proto, maml = (found[name, *task] - found[other, *task] for other in ("ProtoNet", "FOMAML"))
            ahead = task == (20, 1)
            assert proto.high < 0 if ahead else proto.low < 0 < proto.high, (name, task)
            assert maml.low > 0, (name, task)
    letters = kd.data.scripts()
    for part, count in {"train": 1248, "test": 225}.items():
        assert sum(len(letters[script]) for script in few_shot_scripts.SCRIPTS[part]) == count


def test_each_setting_of_held_out_scripts_was_the_best_of_a_grid_that_goes_beyond_it():
    for name in few_shot_scripts.METHODS:
        if name != few_shot_scripts.PIXELS:
            assert few_shot_scripts.wanted(few_shot_scripts.chosen(LETTERS, name), name) is None, name


def test_scripts_to_train_on_to_choose_by_and_to_test_share_nothing():
    parts = few_shot_scripts.SCRIPTS.values()
    assert len({script for part in parts for script in part}) == sum(map(len, parts)) == len(kd.data.scripts())


PRUNED_CODE = cells(pruning.CHAPTER, "code")
PRUNED_RESULTS = settings.read(ROOT / pruning.RESULTS)


def test_the_table_of_pruning_is_the_record():
    prose = cells(pruning.CHAPTER, "markdown")
    assert pruning.table(PRUNED_RESULTS) in prose
    assert [pruning.key(one) for one in PRUNED_RESULTS] == pruning.grid()
    assert {len(one["accuracies"]) for one in PRUNED_RESULTS} == {5}


def test_the_chapter_on_pruning_trains_with_the_best_settings():
    best = pruning.best(PRUNED_RESULTS)
    trained = {
        "dense": r"dense = train_all\(copy.deepcopy\(starts\)",
        "dense, trained on": r"dense_trained_on=train_all\(copy.deepcopy\(dense\)",
        "masked at random": r"random_places=train_all\(at_random\(dense, zeros\[2\]\)",
        "from scratch": r"from_scratch=train_all\(started\(5, width=16\)",
        "distilled": r"distilled=train_all\(started\(5, width=16\)",
    }
    widths = (16, 8, 5)
    masked, narrowed = ([f"{how} {width} filters" for width in widths] for how in ("masked as", "narrowed to"))
    assert {*trained, *masked, *narrowed} == best.keys()
    rates = ", ".join(str(tuple(best[method]["rate"] for method in methods)) for methods in (masked, narrowed))
    assert f"widths = {widths}\n" in PRUNED_CODE
    assert f"mask_rates, narrow_rates = {rates}\n" in PRUNED_CODE
    assert len(re.findall(r"passes=3, rate=of_(?:masks|narrow)", PRUNED_CODE)) == 2
    for method, begun in trained.items():
        [(passes, rate)] = re.findall(begun + r", passes=(\d+), rate=([\d.]+)", PRUNED_CODE)
        assert (int(passes), float(rate)) == (pruning.PASSES[method], best[method]["rate"]), method
    gap = best["narrowed to 16 filters"]["accuracy"] - best["from scratch"]["accuracy"]
    assert abs(gap) < 0.01, "within a point of each other, as the text says"
    soft = best["distilled"]
    assert f"temperature={soft['temperature']}, weight={soft['weight']})" in PRUNED_CODE


RESNET = settings.read(ROOT / pruning_resnet.RESULTS)


def test_the_table_of_the_pruned_resnet_is_the_record():
    prose = cells(pruning.CHAPTER, "markdown")
    assert pruning_resnet.table(RESNET) in prose
    assert {one["method"] for one in RESNET if one["part"] == "cost"} == {*pruning_resnet.METHODS}
    scores = {one["method"]: one.get("accuracies", []) for one in RESNET if one["part"] == "accuracy"}
    assert {len(scores[name]) for name in pruning_resnet.METHODS} == {pruning_resnet.SEEDS}


def test_sentences_on_the_pruned_resnet_are_the_record():
    found = {one["method"]: one["accuracies"] for one in RESNET if one["part"] == "accuracy"}
    cost = {one["method"]: one for one in RESNET if one["part"] == "cost"}

    def ahead(one, other):
        return all(a > b for a, b in zip(found[one], found[other], strict=True))

    assert all(ahead(pruning_resnet.SCRATCH, name) for name in pruning_resnet.MADE if name != "dense, trained on")
    assert ahead("filters, each group", "filters, in three rounds")
    for batch in ("1", "64"):
        fastest = max(
            pruning_resnet.METHODS[1:], key=lambda name: (cost[name]["times as fast"] or {batch: [0, 0]})[batch][1]
        )
        assert fastest == "blocks"
    halves = [name for name in pruning_resnet.METHODS if not name.startswith("dense")]
    assert all(0.45 < cost[name]["macs"] / cost["dense"]["macs"] < 0.55 for name in halves)


@pytest.mark.skipif(importlib.util.find_spec("torch_pruning") is None, reason="the extra 'pruning' is not installed")
@pytest.mark.parametrize("together", [False, True])
def test_torch_prunings_own_pruner_removes_the_same_filters_where_nothing_is_rounded(together):
    torch.manual_seed(0)
    network = pruning_resnet.Narrow(8)
    ours = pruning_resnet.by_norm(network, 0.25, together).parameters()
    theirs = pruning_resnet.by_library(network, 0.25, together).parameters()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_each_rate_of_the_pruned_resnet_was_the_best_of_a_grid_that_goes_beyond_it():
    for method in pruning_resnet.METHODS:
        assert settings.grown(pruning_resnet.rates(RESNET, method), pruning_resnet.RATES) is None, method
        assert len(pruning_resnet.rates(RESNET, method)) >= 3


EXTRACTED_CODE = cells(feature_extraction.CHAPTER, "code")
EXTRACTED_RESULTS = settings.read(ROOT / feature_extraction.RESULTS)


def test_the_tables_of_feature_extraction_are_the_record():
    prose = cells(feature_extraction.CHAPTER, "markdown")
    assert feature_extraction.table(EXTRACTED_RESULTS) in prose
    assert feature_extraction.sizes(EXTRACTED_RESULTS) in prose
    runs = [feature_extraction.key(one) for one in EXTRACTED_RESULTS]
    assert sorted(runs, key=str) == sorted(feature_extraction.grid(), key=str)
    assert {len(one["accuracies"]) for one in EXTRACTED_RESULTS} == {10}


def test_the_chapter_on_feature_extraction_uses_the_best_settings():
    best = {name: one["setting"] for name, one in feature_extraction.best(EXTRACTED_RESULTS).items()}
    stated = dict(re.findall(r'"([^"]+)": \((?:probe|neighbors), (\(.+?\))\),', EXTRACTED_CODE))
    (trained,) = re.findall(r"SCRATCH = (\(.+?\))", EXTRACTED_CODE)
    layers = re.findall(r'google = noto\["(.+?)"\]', EXTRACTED_CODE)
    for name, setting in {**stated, "from scratch": trained}.items():
        used = [*layers, *ast.literal_eval(setting)] if name.endswith("features") else [*ast.literal_eval(setting)]
        assert used == best[name], name
    assert {*stated, "from scratch"} == best.keys()


def test_the_features_are_compared_with_the_best_that_works_without_transfer():
    (stated,) = re.findall(r"alternatives = (\{.+?\})", EXTRACTED_CODE)
    wanted = {labels: feature_extraction.alternative(EXTRACTED_RESULTS, labels) for labels in (5, 20)}
    assert ast.literal_eval(stated) == wanted


def test_handwriting_is_read_from_the_layer_that_is_best_on_other_draws():
    layer = feature_extraction.for_handwriting(EXTRACTED_RESULTS)
    assert f'"ImageNet, block 10": photographs["{layer}"]' in EXTRACTED_CODE
    assert layer == "body._blocks.10"


FEW_CODE = cells(small_data.CHAPTER, "code")
FEW_PROSE = cells(small_data.CHAPTER, "markdown")


@pytest.fixture
def few(monkeypatch):
    """The trials of settings of the chapter on small data, and its record; nothing is measured."""

    def missing(asked, seeds):
        raise AssertionError(f"not on record: {asked}")

    monkeypatch.setattr(small_data, "run", missing)
    tried, record = small_data.studies()
    assert {len(one["accuracies"]) for study in (tried, record) for one in study.known.values()} == {10}
    assert record.known.keys() == {*small_data.reported(tried)}
    return tried, record


def stated(name):
    """What the chapter assigns to a name."""
    parts = [part for part in ast.parse(FEW_CODE.replace("%pip", "#")).body if isinstance(part, ast.Assign)]
    [found] = [part.value for part in parts if ast.unparse(part.targets[0]) == name]
    return found


def test_the_tables_of_small_data_are_the_record(few):
    assert small_data.table(*few) in FEW_PROSE
    assert f"95 % intervals reach at most {small_data.widest(*few):.1f} points" in " ".join(FEW_PROSE.split())
    assert small_data.remedies(*few) in FEW_PROSE
    photographs = json.loads((ROOT / "results/label-efficiency/cifar10.json").read_text(encoding="utf-8"))
    assert label_efficiency.table(photographs["results"]) in FEW_PROSE


def test_the_chapter_on_small_data_trains_with_the_best_settings(few):
    chosen = small_data.chosen(few[0])
    assert ast.literal_eval(stated("PROBES")) == {labels: one[4] for labels, one in chosen["emoji, probe"].items()}
    sorters = {labels: one[4:] for labels, one in chosen["emoji, from scratch"].items()}
    assert ast.literal_eval(stated("SORTERS")) == sorters
    readers = {
        ast.literal_eval(name): (ast.unparse(how.elts[0]), *map(ast.literal_eval, how.elts[1:]))
        for name, how in zip(stated("READERS").keys, stated("READERS").values, strict=True)
    }
    assert readers.keys() == small_data.DIGITS.keys()
    for name, column in small_data.DIGITS.items():
        *_, strength, rate, steps = chosen[column][small_data.AT]
        begin = "reader" if "from scratch" in column else "reader_of_print"
        assert readers[name] == (begin, rate, steps, strength), name


def test_no_setting_of_small_data_was_decided_at_the_edge_of_its_ladder(few):
    edges = {name: (rungs[0], rungs[-1]) for name, rungs in small_data.LADDERS.items()}
    for name, by_labels in small_data.chosen(few[0]).items():
        for labels, (*_, rate, steps) in by_labels.items():
            assert rate not in edges["probe" if name == "emoji, probe" else "rate"], (name, labels)
            assert steps != edges["steps"][1], (name, labels)
    for (name, remedy), (*_, strength, _, _) in small_data.strengths(few[0]).items():
        assert strength != edges.get(remedy, (0, None))[1], (name, remedy)


MOVED_CODE = cells(what_transfers.CHAPTER, "code")
MOVED_RESULTS = settings.read(ROOT / what_transfers.RESULTS)


def test_the_table_of_what_transfers_is_the_record():
    prose = cells(what_transfers.CHAPTER, "markdown")
    assert what_transfers.table(MOVED_RESULTS) in prose
    assert [what_transfers.key(one) for one in MOVED_RESULTS] == what_transfers.grid()
    assert {len(one["accuracies"]) for one in MOVED_RESULTS} == {10}


def test_the_chapter_on_what_transfers_uses_the_best_settings():
    best = {name: tuple(one["setting"]) for name, one in what_transfers.best(MOVED_RESULTS).items()}
    (stated,) = re.findall(r"SETTINGS = (\{.+?\})", MOVED_CODE, re.DOTALL)
    assert ast.literal_eval(stated) == best
    used = set(re.findall(r'SETTINGS\[f?"(.+?)"\]', MOVED_CODE))
    assert used >= {"emoji: {name}", "{name}, frozen", "{name}, trained along", "printed digits, whole", "from scratch"}


def test_what_transfers_says_of_the_other_vendor_is_the_record():
    results = settings.read(ROOT / second_vendor.RESULTS)
    assert [one["method"] for one in results] == [*second_vendor.SHOWN, "own task"]
    assert {len(one["accuracies"]) for one in results} == {10}
    prose = " ".join(cells(what_transfers.CHAPTER, "markdown").split())
    assert second_vendor.sentence(results) in prose
    assert "The conclusions are the same." in prose
    known = {one["method"]: kd.Estimate(tuple(one["accuracies"])) for one in results}
    assert (known["ImageNet"] - known["from scratch"]).low > 0
    assert (known["ImageNet"] - known["pixels"]).low > 0
    for near, without in (("other vendor", "from scratch"), ("other vendor, probe", "pixels")):
        assert (known[near] - known[without]).low < 0 < (known[near] - known[without]).high


def test_what_transfers_was_not_decided_at_the_edge_of_a_grid():
    """The means of the best rate lie above those of the lowest and of the highest rate that were tried."""
    known = {what_transfers.key(one): mean(one["accuracies"]) for one in MOVED_RESULTS}
    for name, several in what_transfers.GRID.items():
        if name == "nearest neighbor":
            continue
        dial = sorted({one[0] for one in several})
        highest = {value: max(known[name, one] for one in several if one[0] == value) for value in dial}
        assert max(highest, key=highest.__getitem__) not in (dial[0], dial[-1]), name


TUNED_CODE = cells(fine_tuning.CHAPTER, "code")
TUNED_PROSE = cells(fine_tuning.CHAPTER, "markdown")
TUNED_RESULTS = settings.read(ROOT / fine_tuning.RESULTS)
TUNED_DEPTH = settings.read(ROOT / fine_tuning.DEPTH)


def test_the_figure_and_tables_of_fine_tuning_are_the_record():
    assert fine_tuning.literal(TUNED_DEPTH) in TUNED_CODE
    assert fine_tuning.table(TUNED_DEPTH) in TUNED_PROSE
    assert fine_tuning.rates(TUNED_RESULTS) in TUNED_PROSE
    assert fine_tuning.statistics_table(TUNED_RESULTS) in TUNED_PROSE


def test_the_record_of_fine_tuning_is_complete():
    tried = [fine_tuning.key(one) if "depth" in one else fine_tuning.hand_key(one) for one in TUNED_RESULTS]
    assert tried == [*fine_tuning.tuned(), *fine_tuning.on_handwriting()]
    reported = dict(fine_tuning.reported())
    assert {fine_tuning.key(one): len(one["accuracies"]) for one in TUNED_DEPTH} == reported


def test_what_the_chapter_trains_itself_has_the_best_settings():
    _, _, _, _, rate, steps, statistics = fine_tuning.plain("noto", "last 2 blocks", 96, 5)
    assert f"fine_tune(upper, known, rate={rate:g}, steps={steps})" in TUNED_CODE
    assert statistics == "frozen"
    assert 'def fine_tune(model, few, rate, steps, statistics="frozen")' in TUNED_CODE


def test_the_prediction_begins_from_the_probe_of_the_record():
    known = {fine_tuning.key(one): one["accuracies"] for one in TUNED_DEPTH}
    probe = mean(known[fine_tuning.plain("noto", fine_tuning.PROBE, 96, 20)])
    assert f"is right on {100 * probe:.0f} % of" in TUNED_PROSE


def test_what_the_text_says_of_the_rates_is_in_the_record():
    known = {fine_tuning.hand_key(one): one for one in TUNED_RESULTS if "way" in one}

    def means(way, statistics, rate, steps=80):
        one = known[way, statistics, rate, steps]
        return 100 * mean(one["accuracies"]), mean(one["forgetting"])

    def best(way):
        return max(fine_tuning.HAND_RATES, key=lambda rate: means(way, "train", rate))

    assert (best("all layers"), best("LoRA")) == (0.001, 0.01)
    pairs = zip(means("all layers", "train", 0.001), means("LoRA", "train", 0.01), strict=True)
    assert all(abs(one - other) < 1.1 for one, other in pairs), "about a point"
    for way in fine_tuning.WAYS:
        assert means(way, "train", 0.003, 320)[0] - means(way, "train", 0.003)[0] < 2
    assert 4 < means("all layers", "train", 0.001)[0] - means("biases", "frozen", 0.01)[0] < 6
    assert abs(means("biases", "frozen", 0.01)[0] - means("biases", "frozen", 0.03)[0]) < 0.2, "about the same"
    low, all_layers = known["LoRA", "train", 0.003, 80], known["all layers", "train", 0.0003, 80]
    assert round(mean(low["forgetting"])) == round(mean(all_layers["forgetting"])) == 24
    gain = kd.Estimate(tuple(low["accuracies"])) - kd.Estimate(tuple(all_layers["accuracies"]))
    text = f"a difference of {100 * gain.mean:.1f} points ({100 * gain.low:.1f} to {100 * gain.high:.1f})"
    assert text.replace("-", "−") in " ".join(TUNED_PROSE.split())


def test_what_the_text_says_of_more_steps_is_in_the_record():
    tried = {fine_tuning.key(one): one["accuracies"] for one in TUNED_RESULTS if "depth" in one}

    def shown(depth, labels, passes):
        return f"{100 * mean(tried[fine_tuning.plain('noto', depth, 96, labels, passes)]):.1f} %"

    for depth in ("last 2 blocks", "last 5 blocks"):
        for labels in (5, 20):
            text = f"from {shown(depth, labels, 1)} to {shown(depth, labels, fine_tuning.LONGER)}"
            assert text in " ".join(TUNED_PROSE.split())


def test_no_trained_part_is_told_apart_from_the_probe():
    known = {fine_tuning.key(one): kd.Estimate(tuple(one["accuracies"])) for one in TUNED_DEPTH}
    trained = [one for one in known if one[1] != fine_tuning.PROBE]
    assert len(trained) == len(known) - 6
    for vendor, depth, size, labels, *rest in trained:
        probe = known[fine_tuning.plain(vendor, fine_tuning.PROBE, size, labels)]
        gain = known[vendor, depth, size, labels, *rest] - probe
        assert gain.low < 0 < gain.high, (vendor, depth, size, labels, rest)


def test_more_steps_are_not_told_apart_on_the_draws_of_the_figure():
    known = {fine_tuning.key(one): one["accuracies"] for one in TUNED_DEPTH}
    tried = {fine_tuning.key(one): one["accuracies"] for one in TUNED_RESULTS if "depth" in one}
    for labels in (5, 20):
        fewer, more = (
            fine_tuning.plain("noto", "last 5 blocks", 96, labels, passes) for passes in (1, fine_tuning.LONGER)
        )
        gain = kd.Estimate(tuple(known[more])) - kd.Estimate(tuple(known[fewer]))
        assert gain.low < 0 < gain.high
        assert gain.mean < mean(tried[more]) - mean(tried[fewer])
