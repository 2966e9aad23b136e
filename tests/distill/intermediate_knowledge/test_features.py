"""What all objectives on intermediate knowledge have in common."""

import copy

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.distill.intermediate_knowledge import _features
from tests.distill.intermediate_knowledge.common import (
    OBJECTIVES,
    OF_MAPS,
    OF_PAIRS,
    WITH_LAYERS,
    first,
    made,
    maps,
    network,
    pictures,
    rows,
    teacher,
    trained,
)

each = pytest.mark.parametrize("name", OBJECTIVES)


@each
def test_the_student_learns_from_the_teachers_layers_and_ends_elsewhere_without_them(name):
    before, guided = network().state_dict(), trained(made(name))
    alone = trained(made(name, weight=0.0))
    plain = trained(kd.Supervised(network()))
    for key, value in alone.items():
        assert torch.equal(value, plain[key]), key
    assert any(not torch.allclose(value, alone[key], atol=1e-4) for key, value in guided.items())
    assert any(not torch.allclose(value, before[key], atol=1e-4) for key, value in guided.items())


@each
def test_another_teacher_teaches_something_else_and_the_same_one_the_same(name):
    one, again, other = (trained(made(name, labels=0.0, teacher=teacher(seed))) for seed in (5, 5, 6))
    assert all(torch.equal(value, again[key]) for key, value in one.items())
    assert any(not torch.allclose(value, other[key], atol=1e-5) for key, value in one.items())


@each
@pytest.mark.parametrize("pretend", ["train mode", "evaluation mode"])
def test_the_teacher_is_bit_equal_after_training_and_gets_no_gradient(name, pretend):
    guide = teacher().train(pretend == "train mode")
    before = copy.deepcopy(guide.state_dict())
    objective = made(name, teacher=guide)
    objective.train()
    trained(objective)
    for key, value in guide.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not any(module.training for module in guide.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in guide.parameters())


@each
def test_all_that_is_trained_is_a_submodule_made_before_the_optimizer_and_changes(name):
    objective = made(name)
    own = {key: value.clone() for key, value in objective.named_parameters() if value.requires_grad}
    trained(objective)
    after = dict(objective.named_parameters())
    assert {key for key, value in after.items() if value.requires_grad} == own.keys()
    beside = [key for key in own if not key.startswith("learner.")]
    has_none = name in ("AttentionTransfer", "RKD", "SP", "PKT", "NST", "JacobianMatching")
    assert bool(beside) != has_none
    assert all(not torch.equal(after[key], own[key]) for key in own)


@each
def test_making_an_objective_changes_nothing_in_the_networks(name):
    student, guide = network().train(), teacher().train()
    before = copy.deepcopy((student.state_dict(), guide.state_dict()))
    made(name, student=student, teacher=guide)
    for now, then in zip((student.state_dict(), guide.state_dict()), before, strict=True):
        assert all(torch.equal(now[key], then[key]) for key in then)
    assert all(module.training for module in student.modules())


@each
def test_each_network_runs_once_for_a_batch_and_the_labels_are_of_the_same_run(name):
    runs = {"student": 0, "teacher": 0}

    def counted(model: nn.Module, who: str) -> nn.Module:
        model.register_forward_hook(lambda *_: runs.__setitem__(who, runs[who] + 1))
        return model

    objective = made(name, student=counted(network(), "student"), teacher=counted(teacher(), "teacher"))
    runs.update(student=0, teacher=0)
    terms = objective(first())
    assert runs == {"student": 1, "teacher": 1}
    assert next(iter(terms)) == "labels"
    assert len(terms) == 2


@each
def test_the_weights_scale_their_terms_and_zero_leaves_one_out(name):
    batch = first()
    plain, doubled = (made(name, weight=weight)(first()) for weight in (0.5, 1.0))
    ((_, own), (_, twice)) = (list(terms.items())[1] for terms in (plain, doubled))
    torch.testing.assert_close(2 * own, twice)
    assert list(made(name, weight=0.0)(batch)) == ["labels"]
    assert "labels" not in made(name, labels=0.0)(first())
    unlabeled = next(pictures().unlabeled().batches(12))
    made(name, labels=0.0)(unlabeled)
    for argument in ("weight", "labels"):
        with pytest.raises(ValueError, match=f"{argument} must be a finite number of at least 0"):
            made(name, **{argument: -1.0})


@each
def test_a_recorded_teacher_has_no_layers_and_a_model_cannot_teach_itself(name):
    with pytest.raises(ValueError, match="teacher is Recorded, which knows outputs and has no layers"):
        made(name, teacher=kd.Recorded(teacher(), pictures()))
    model = network()
    with pytest.raises(ValueError, match="same object"):
        made(name, student=model, teacher=model)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in OF_PAIRS])
def test_samples_count_by_their_column_weight_where_the_loss_is_a_mean_over_samples(name):
    data = pictures(6)
    counts = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 0.0])
    weighted = data.with_columns(weight=counts)
    repeated = [1, 2, 2, 4]
    objective = made(name, labels=0.0).eval()
    ((_, found),) = objective(next(weighted.batches(6))).items()
    ((_, wanted),) = objective(first(data.subset(repeated), 4)).items() if name != "CRD" else [("", None)]
    ((_, plain),) = objective(first(data, 6)).items()
    assert not torch.isclose(found, plain)
    if wanted is not None:
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_a_layer_that_is_not_there_is_named_with_the_nearest(name):
    with pytest.raises(ValueError, match=r"layers='blok1' is not in Classifier; nearest: block1"):
        made(name, layers={"blok1": "block1"})
    with pytest.raises(ValueError, match=r"layers='blok2' is not in Classifier; nearest: block2"):
        made(name, layers={"block1": "blok2"})
    with pytest.raises(ValueError, match="at least one layer"):
        made(name, layers={})


@pytest.mark.parametrize("name", OF_MAPS)
def test_layers_without_places_are_refused_with_both_shapes(name):
    with pytest.raises(ValueError, match=r"student \(3,\), teacher \(16, 2, 2\)"):
        made(name, layers={"head": "block2"})


@pytest.mark.parametrize("name", ["Hints", "VID"])
def test_a_map_and_a_row_cannot_be_matched_and_both_shapes_are_named(name):
    with pytest.raises(ValueError, match=r"student \(8, 2, 2\), teacher \(3,\)"):
        made(name, layers={"block2": "head"})


@pytest.mark.parametrize("name", OF_PAIRS)
def test_a_batch_of_one_has_no_relations(name):
    with pytest.raises(ValueError, match="at least 2"):
        made(name)(first(size=1))


def test_without_names_the_last_blocks_of_common_resolutions_are_taken():
    deeper = network(8, depth=3)  # 4×4, 2×2, 1×1
    objective = made("AttentionTransfer", teacher=network(6, depth=4, seed=2), student=deeper)
    assert objective.student_layers == ("block1", "block2")
    assert objective.teacher_layers == ("block2", "block3")
    assert objective.shapes == [((8, 4, 4), (12, 4, 4)), ((16, 2, 2), (24, 2, 2))]


def test_networks_without_a_common_resolution_want_names():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ValueError, match=r"layers must be named.*2×2 \(block2\).*no maps at all"):
        made("Hints", teacher=flat)


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_layers_of_other_resolutions_are_matched_by_averaging_the_larger_one(name):
    objective = made(name, layers={"block1": "block2"})
    assert objective.shapes == [((4, 4, 4), (16, 2, 2))]
    terms = objective(first())
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize("name", [name for name in WITH_LAYERS if name != "ReviewKD" and "CRD" not in name])
def test_several_layers_are_added_up(name):
    both = made(name, layers={"block1": "block1", "block2": "block2"}, labels=0.0)
    parts = [made(name, layers={path: path}, labels=0.0) for path in ("block1", "block2")]
    if name in ("Hints", "VID"):
        own = both.regressors if name == "Hints" else both.predicted
        for part, learned in zip(parts, own, strict=True):
            (part.regressors if name == "Hints" else part.predicted)[0].load_state_dict(learned.state_dict())
    ((_, whole),) = both(first()).items()
    torch.testing.assert_close(whole, sum(next(iter(part(first()).values())) for part in parts))


def test_a_model_of_any_make_is_tapped_by_the_names_of_its_layers():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.last(self.conv(x).mean((2, 3)))

    objective = made("Hints", student=Own(), layers={"conv": "block1"})
    assert objective.shapes == [((3, 6, 6), (8, 4, 4))]
    trained(objective)


def test_inputs_instead_of_data_show_the_shapes_too():
    objective = kd.distill.Hints(network(), teacher(), torch.zeros(2, 1, 8, 8))
    assert objective.shapes == kd.distill.Hints(network(), teacher(), pictures()).shapes


def test_features_of_other_batches_are_refused():
    with pytest.raises(ValueError, match=r"student \(4, 5\), teacher \(3, 5\)"):
        _features.rows_of(rows(4), rows(3))
    with pytest.raises(ValueError, match=r"student \(4, 5, 3, 3\), teacher \(3, 5, 3, 3\)"):
        _features.require_maps(maps(4), maps(3))


@each
def test_half_precision_of_the_networks_leaves_the_losses_in_float32_and_close(name):
    whole, half = first(), first()
    half.precision = torch.bfloat16
    objective = made(name, labels=0.0).eval()
    ((_, wanted),) = objective(whole).items()
    ((_, found),) = objective(half).items()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.15, atol=0.05)
