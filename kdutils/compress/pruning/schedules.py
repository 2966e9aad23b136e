"""How much is pruned when: at once, in rounds, or along a curve."""

from __future__ import annotations

from kdutils.checks import require_count, require_whole

__all__ = ["cubic", "iterative", "one_shot", "require_ratio"]


def require_ratio(**ratios: float) -> None:
    """Raise ValueError unless every number lies in [0, 1): a network of which nothing is left is none."""
    for name, value in ratios.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie in [0, 1), 1 excluded: the share that is pruned; got {value!r}")


def one_shot(final: float) -> list[float]:
    """Everything in one round: the ratio itself, in a list, as :func:`iterative` gives them.

    Args:
        final: share of the weights to prune, in [0, 1).

    Raises:
        ValueError: if it is out of range.
    """
    require_ratio(final=final)
    return [float(final)]


def iterative(rounds: int, final: float) -> list[float]:
    r"""The ratio after each round, when each round prunes the same share of what is left.

    .. math:: r_k = 1 - (1 - r)^{k/n}, \qquad k = 1, \dots, n

    Args:
        rounds: n, of pruning and training on.
        final: r in [0, 1), pruned after the last.

    Returns:
        n ratios of the whole network, growing; the last is ``final`` exactly.

    Raises:
        ValueError: if a number is out of range.

    Source: prune and retrain in rounds: Han et al. (2015), arXiv:1506.02626; the same share of what is left
    in each: Frankle and Carbin (2019), arXiv:1803.03635.
    """
    require_count(rounds=rounds)
    require_ratio(final=final)
    return [*(1 - (1 - final) ** (number / rounds) for number in range(1, rounds)), float(final)]


def cubic(step: int, begin: int, end: int, initial: float, final: float) -> float:
    r"""The ratio at a step of training: fast while much is redundant, slowly towards the end.

    .. math:: r_t = r_f + (r_i - r_f) \left( 1 - \frac{t - t_0}{t_1 - t_0} \right)^3

    between the steps ``begin`` and ``end``; ``initial`` before, ``final`` after.

    Args:
        step: t.
        begin: t₀, at which pruning begins.
        end: t₁ > t₀, at which it is done.
        initial: r_i in [0, 1).
        final: r_f in [r_i, 1).

    Raises:
        ValueError: if a number is out of range, or ``end`` does not come after ``begin``.

    Source: Zhu and Gupta (2017), arXiv:1710.01878, equation 1.
    """
    require_whole(step=step, begin=begin, end=end)
    require_ratio(initial=initial, final=final)
    if end <= begin:
        raise ValueError(f"end must come after begin; got begin={begin}, end={end}")
    if final < initial:
        raise ValueError(f"final must be at least initial: what is pruned stays so; got {initial!r} to {final!r}")
    left = 1 - min(max((step - begin) / (end - begin), 0.0), 1.0)
    return float(final + (initial - final) * left**3)
