"""The benchmark of learning to learn: what it compares, and that a difference is noticed."""

import pytest
import torch

from benchmarks import learning_to_learn


def test_it_prints_a_line_for_each_network_size_and_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert learning_to_learn.main(["--tasks", "1,2", "--rounds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16
    for start in (
        "| MAML, mlp, 1 task, second order, chosen (loop,",
        "| MAML, cnn, 2 tasks, first order, chosen (vmap,",
    ):
        assert [line for line in lines if line.startswith(start)]


@pytest.mark.parametrize("changed", ["value", "gradient"])
def test_another_result_than_the_explicit_loop_is_noticed(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    right = learning_to_learn.explicit

    def other(*arguments: object) -> torch.Tensor:
        value = right(*arguments)
        return value + 1e-2 if changed == "value" else value.detach() + (value - value.detach()) * 1.1

    monkeypatch.setattr(learning_to_learn, "explicit", other)
    setting = learning_to_learn.mlp(4, "cpu")
    with pytest.raises(AssertionError):
        learning_to_learn.speed("mlp", setting, next(setting.tasks.batches(4)), False, 2)


def test_memory_wants_a_gpu_and_an_unknown_network_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    learning_to_learn.main(["--tasks", "2", "--networks", "mlp", "--parts", "memory"])
    assert "take --device cuda" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        learning_to_learn.main(["--networks", "rnn"])
    assert "unknown: rnn; choose out of mlp, cnn" in capsys.readouterr().err
