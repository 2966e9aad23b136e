"""Sums over a kernel matrix that is never there as a whole."""

from itertools import product

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdutils.adapt import Gaussian, Laplace, Polynomial, energy_distance, mmd2, witness
from kdutils.adapt.mmd.blocks import kernel_of_rows, ranges, row_sums
from tests.adapt.mmd.common import KERNELS, naive_kernel, samples


class Largest(TorchDispatchMode):
    """The most numbers that any result of an operation has."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return result


@pytest.mark.parametrize("name", KERNELS)
def test_row_sums_are_those_of_the_whole_matrix(name):
    (x, y), kernel = samples(7, 5), KERNELS[name]
    for block in (1, 3, 4, 100):
        between = [sum(naive_kernel(kernel, a, b) for b in y) for a in x]
        torch.testing.assert_close(row_sums(x, y, kernel, block), torch.tensor(between, dtype=torch.float64))
        for diagonal in (True, False):
            within = [sum(naive_kernel(kernel, x[i], x[j]) for j in range(7) if diagonal or i != j) for i in range(7)]
            found = row_sums(x, None, kernel, block, diagonal)
            torch.testing.assert_close(found, torch.tensor(within, dtype=torch.float64))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("block", [2, None])
def test_gradients_of_row_sums_are_exact(name, block):
    x, y = (sample.requires_grad_() for sample in samples(5, 4))
    kernel = KERNELS[name]
    assert gradcheck(lambda a, b: row_sums(a, b, kernel, block), (x, y))
    assert gradcheck(lambda a: row_sums(a, None, kernel, block, diagonal=False), (x,))
    assert gradcheck(lambda a: row_sums(a, None, kernel, block), (x,))
    assert gradcheck(lambda a, b: kernel_of_rows(a[:4], b, kernel), (x, y))


@pytest.mark.parametrize(("name", "estimator"), list(product(KERNELS, ["unbiased", "biased"])))
def test_blocks_of_any_size_give_the_value_and_gradient_of_one(name, estimator):
    def both(block):
        x, y = (sample.requires_grad_() for sample in samples(13, 10))
        value = mmd2(x, y, KERNELS[name], estimator, block)
        return value.detach(), *torch.autograd.grad(value, (x, y))

    whole = both(13)
    for block in (1, 4, 5, 7, 12, 1000, None):
        torch.testing.assert_close(both(block), whole, rtol=1e-10, atol=1e-12)


def test_a_sample_without_gradient_changes_nothing_for_the_other():
    x, y = samples(6, 5)
    free = x.clone().requires_grad_(), y.clone().requires_grad_()
    expected = torch.autograd.grad(mmd2(*free, Gaussian(1.0)), free)
    for number in (0, 1):
        pair = [x.clone(), y.clone()]
        pair[number].requires_grad_()
        mmd2(*pair, Gaussian(1.0), block=2).backward()
        torch.testing.assert_close(pair[number].grad, expected[number])
        assert pair[1 - number].grad is None


@pytest.mark.parametrize("kernel", [Gaussian(1.0), Gaussian([1.0, 2**0.5, 2.0]), Laplace(1.0), Polynomial()])
@pytest.mark.parametrize("estimator", ["unbiased", "biased", "linear"])
def test_no_tensor_is_larger_than_a_block_and_the_inputs_forward_or_backward(kernel, estimator):
    n, d, block = 600, 2, 40
    x, y = (sample.requires_grad_() for sample in samples(n, n + 30, d))
    bound = max(block**2, (n + 30) * d)
    with Largest() as largest:
        mmd2(x, y, kernel, estimator, block).backward()
    assert x.grad is not None
    assert 0 < largest.numbers <= bound
    with Largest() as largest:
        witness(x, x, y, kernel, block).sum().backward()
        energy_distance(x, y, block=block).backward()
    assert largest.numbers <= bound


def test_the_median_looks_at_no_more_than_a_thousand_rows_at_once():
    with Largest() as largest:
        mmd2(*samples(4000, 3000, 2), "gaussian", block=512)
    assert largest.numbers <= 1000**2


def test_a_block_is_a_whole_number_from_one_on():
    x, y = samples(4, 3)
    for block in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="block must be"):
            row_sums(x, y, Gaussian(1.0), block)
        with pytest.raises(ValueError, match="block must be"):
            mmd2(x, y, estimator="linear", block=block)
    assert [(piece.start, piece.stop) for piece in ranges(7, 3)] == [(0, 3), (3, 6), (6, 7)]
