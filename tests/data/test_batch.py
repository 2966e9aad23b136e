"""What an objective sees in a step, and what it cannot see."""

import pytest
import torch
from numbered import numbered
from torch import nn

import kdutils as kd
from kdutils.data import Batch, Dataset, Stream, augment, run_joined
from kdutils.data.gathered import gathered


def test_a_batch_in_parts_holds_the_same_samples():
    (batch,) = numbered(torch.arange(10) % 2).batches(10)
    pieces = batch.parts(3)
    assert [len(piece) for piece in pieces] == [4, 3, 3]
    assert torch.equal(torch.cat([piece.images for piece in pieces]), batch.images)
    assert all(piece.of == 10 for piece in pieces)


def test_a_batch_keeps_its_views_for_a_teacher_that_was_asked_before():
    data = numbered(torch.arange(8) % 2)
    views = augment.flip()
    (batch,) = data.batches(8, shuffle=True, augment=views)
    plain = data.images[batch.index]
    assert torch.equal(batch.images, views.show(plain, batch.host_view, batch.index))
    assert batch.host_view.tolist() != [0] * 8


def test_a_batch_runs_each_model_once():
    class Counting(nn.Module):
        calls = 0

        def forward(self, images):
            self.calls += 1
            return images.sum()

    batch = Batch(torch.ones(2, 1, 2, 2), None, torch.arange(2), 1)
    one, two = Counting(), Counting()
    assert batch.run(one) is batch.run(one)
    batch.run(two)
    assert (one.calls, two.calls) == (1, 1)


def test_other_inputs_run_anew_and_are_not_remembered():
    model = nn.Flatten()
    batch = Batch(torch.ones(2, 1, 2, 2), None, torch.arange(2))
    assert torch.equal(batch.run(model, torch.zeros(2, 4)), torch.zeros(2, 4))
    assert torch.equal(batch.run(model), torch.ones(2, 4))


def test_a_name_that_is_not_there_lists_those_that_are():
    batch = Batch(torch.ones(2, 1), None, torch.arange(2), columns={"length": torch.ones(2)})
    assert torch.equal(batch["length"], torch.ones(2))
    with pytest.raises(KeyError, match="no 'target'; beside inputs and labels it has 'length'"):
        batch["target"]


def test_batchnorm_sees_joined_batches_as_one_and_each_keeps_its_piece():
    norm = nn.BatchNorm1d(1, affine=False)
    low, high = (Batch(torch.full((4, 1), value), None, torch.arange(4)) for value in (0.0, 1.0))
    first, second = run_joined(norm, low, high)
    torch.testing.assert_close(torch.cat([first, second]), torch.tensor([[-1.0]] * 4 + [[1.0]] * 4), atol=1e-3, rtol=0)
    assert low.run(norm) is first
    apart = nn.BatchNorm1d(1, affine=False)
    assert Batch(high.inputs, None, high.index).run(apart).abs().max() < 1e-3


@pytest.mark.parametrize(("shapes", "message"), [([], "at least one batch"), ([(2, 3), (2, 4)], r"\(3,\) and \(4,\)")])
def test_batches_that_cannot_be_joined_are_named(shapes, message):
    batches = [Batch(torch.zeros(shape), None, torch.arange(2)) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        run_joined(nn.Identity(), *batches)


def masked(n=6):
    """Pictures whose mask is the picture itself, in two classes."""
    masks = torch.randint(2, (n, 5, 7), generator=torch.Generator().manual_seed(0))
    return Dataset(masks.unsqueeze(1).float(), masks, ("ground", "thing"), "masked")


@pytest.mark.parametrize("views", [augment.flip(), augment.chain(augment.shift_crop(2), augment.flip())])
def test_a_mask_moves_as_its_image_does(views):
    (batch,) = masked().batches(6, augment=augment.jointly(views))
    assert not torch.equal(batch.images, batch.plain)
    assert torch.equal(batch.images[:, 0].long(), batch.labels)
    assert torch.equal(batch.plain[:, 0].long(), batch.plain_labels)


def test_an_image_and_its_mask_move_as_the_image_does_alone():
    together = next(masked().batches(6, augment=augment.jointly(augment.shift_crop(2)), seed=3))
    alone = next(masked().unlabeled().batches(6, augment=augment.shift_crop(2), seed=3))
    assert torch.equal(together.images, alone.images)


def test_what_changes_pixels_leaves_the_mask_in_a_chain():
    steps = augment.chain(augment.jointly(augment.flip(1.0)), augment.noise(0.1))
    (batch,) = masked().batches(6, augment=steps)
    assert torch.equal(batch.labels, batch.plain_labels.flip(-1))
    assert not torch.equal(batch.images, batch.plain.flip(-1))
    torch.testing.assert_close(batch.images, batch.plain.flip(-1), atol=1.0, rtol=0)


def test_another_view_starts_from_the_plain_image_and_its_plain_mask():
    flipped = augment.jointly(augment.flip(1.0))
    (batch,) = masked().batches(6, augment=flipped)
    view = batch.view(flipped)
    assert torch.equal(view.labels, batch.plain_labels.flip(-1))
    assert torch.equal(view.images[:, 0].long(), view.labels)
    assert torch.equal(batch.view(augment.noise(0.0)).labels, batch.plain_labels)


def test_class_numbers_are_no_masks():
    with pytest.raises(ValueError, match=r"masks of the inputs' height and width \(2, 2\); got shape \(4,\)"):
        next(numbered([0, 1, 0, 1]).batches(4, augment=augment.jointly(augment.flip())))


def test_parts_of_a_weighted_batch_add_up_to_its_weighted_mean():
    weight = torch.tensor([1.0, 0.5, 0.0, 2.0, 4.0, 1.5])
    data = Dataset(torch.arange(6.0).view(6, 1), None, columns={"weight": weight})
    (batch,) = data.batches(6)
    expected = (weight * torch.arange(6.0)).sum() / weight.sum()

    def term(part):
        return (part.columns["weight"] * part.inputs[:, 0]).sum() / part.weight

    found = sum(term(part) * part.weight / part.of for part in batch.parts(3))
    torch.testing.assert_close(found, expected)
    shards = [next(data.batches(6, part=kd.data.source.Part(0, shard, 2))) for shard in range(2)]
    torch.testing.assert_close(sum(term(part) * part.weight / part.of for part in shards), expected)


@pytest.mark.parametrize("weight", [[-1.0, 1.0], [float("nan"), 1.0], [float("inf"), 1.0], [[1.0], [1.0]]])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(ValueError, match="weight must be one finite number of at least 0 for each sample in 'toy'"):
        Dataset(torch.zeros(2, 1), None, name="toy", columns={"weight": torch.tensor(weight)})


def reachable(value, seen):
    """All tensors that can be reached from an object through its attributes and items, without calling anything."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from reachable(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from reachable(item, seen)
    elif hasattr(value, "__dict__"):
        yield from reachable(vars(value), seen)


@pytest.mark.parametrize("streamed", [False, True])
def test_no_label_of_a_target_domain_can_be_reached_from_the_batch(streamed):
    generator = torch.Generator().manual_seed(0)
    labels = 100 + torch.randperm(40, generator=generator)
    inputs = torch.rand(40, 1, 4, 4, generator=generator)
    classes = tuple(map(str, range(140)))
    if streamed:
        samples = [
            {"inputs": one, "labels": int(label), "coarse": int(label)}
            for one, label in zip(inputs, labels, strict=True)
        ]
        target = Stream(samples, classes, "target", workers=0, columns={"fine": labels})
    else:
        target = Dataset(inputs, labels, classes, "target", {"fine": labels})
    source = Dataset(torch.rand(40, 1, 4, 4, generator=generator), torch.arange(40) % 4, classes, "source")
    both = kd.data.Beside(source, target=target.unlabeled(), strong=augment.flip())
    hidden = {int(label) for label in labels}

    def tells(batch):
        return [t for t in reachable(batch, {}) if t.numel() and hidden & set(t.flatten().tolist())]

    assert tells(next(target.batches(8))), "the search finds labels where there are some"
    for batch in both.batches(8, shuffle=True, augment=augment.shift_crop(1), mix=augment.mixup()):
        seen = batch["target"]
        assert seen.labels is None
        assert seen.other_labels is None
        assert seen.columns == {}
        assert tells(batch) == []
        assert [part.labels for part in (seen.view(augment.flip()), *seen.parts(2))] == [None] * 3
    hidden_target = target.unlabeled().subset(seen.index)
    assert hidden_target.labels is None
    assert next(hidden_target.batches(8)).labels is None


def test_columns_stay_with_hidden_labels_only_when_they_are_named():
    data = Dataset(torch.zeros(2, 1), None, name="toy", columns={"font": torch.arange(2), "coarse": torch.arange(2)})
    assert set(data.unlabeled(keep=["font"]).columns) == {"font"}
    with pytest.raises(ValueError, match=r"got \['size'\], and 'toy' has 'font', 'coarse'"):
        data.unlabeled(keep=["size"])


def test_of_one_process_the_gathered_rows_are_its_own():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gathered(rows, (3,)) is rows
