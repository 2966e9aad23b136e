"""LeJEPA."""

import cmath
import math

import pytest
import torch
from scipy import integrate
from torch.autograd import gradcheck

from kdutils.measure import predict
from kdutils.selfsup import Embedder, LeJEPA, epps_pulley, random_directions, sigreg
from tests.selfsup.common import AUGMENT, backbone, blobs, pair, rotation, small, trained


def exact(values: list[float], bound: float = math.inf) -> float:
    """The integral of the docstring by quadrature."""

    def integrand(t: float) -> float:
        mean = sum(cmath.exp(1j * t * x) for x in values) / len(values)
        return abs(mean - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)

    return len(values) * integrate.quad(integrand, -bound, bound, limit=200)[0]


def mmd2(x: list[float]) -> float:
    """Biased MMD² between samples and the standard normal under exp(−(x − y)²/2), its expectations in closed form."""
    n = len(x)
    within = sum(math.exp(-((a - b) ** 2) / 2) for a in x for b in x) / n**2
    across = sum(math.exp(-a * a / 4) / math.sqrt(2) for a in x) / n
    return within - 2 * across + 1 / math.sqrt(3)


VALUES = [-1.3, 0.2, 0.9, 2.1, -0.4]


def test_the_sum_is_the_integral():
    column = torch.tensor(VALUES, dtype=torch.float64).unsqueeze(1)
    assert epps_pulley(column, 2001).item() == pytest.approx(exact(VALUES, 5.0), rel=1e-6)
    assert epps_pulley(column).item() == pytest.approx(exact(VALUES, 5.0), rel=1e-4)
    t = torch.linspace(-5, 5, 17, dtype=torch.float64)
    mean = torch.exp(1j * column * t).mean(0)
    err = (mean - (-t.square() / 2).exp()).abs().square() * (-t.square() / 2).exp()
    assert epps_pulley(column).item() == pytest.approx(len(VALUES) * torch.trapezoid(err, t).item(), rel=1e-10)


def test_over_the_whole_line_it_is_an_mmd_to_the_normal():
    wanted = len(VALUES) * math.sqrt(2 * math.pi) * mmd2(VALUES)
    assert exact(VALUES) == pytest.approx(wanted, rel=1e-8)
    assert epps_pulley(torch.tensor(VALUES, dtype=torch.float64).unsqueeze(1)).item() == pytest.approx(wanted, rel=1e-3)


def test_gradients_are_exact():
    a, _ = pair()
    axes = random_directions(4, 5, 0, a)
    assert gradcheck(lambda x: sigreg(x, axes), (a.requires_grad_(),))


def test_samples_of_the_normal_have_the_mean_of_the_docstring_and_others_more():
    rows = torch.randn(200, 2000, generator=torch.Generator().manual_seed(0))
    expected = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
    assert epps_pulley(rows).mean().item() == pytest.approx(expected, rel=0.05)
    for other in (rows + 1, 2 * rows, rows.sign()):
        assert epps_pulley(other).mean().item() > 5 * expected
    zeros = math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    assert epps_pulley(torch.zeros(10, 1, dtype=torch.float64)).item() == pytest.approx(10 * zeros, rel=1e-3)


def test_rotating_embeddings_with_directions_changes_nothing_and_it_is_the_mean_over_directions():
    a, _ = pair()
    axes, turn = random_directions(4, 6, 0, a), rotation(4)
    assert sigreg(a @ turn, turn.T @ axes).item() == pytest.approx(sigreg(a, axes).item())
    assert sigreg(-a, axes).item() == pytest.approx(sigreg(a, axes).item())
    each = [epps_pulley(a @ axis.unsqueeze(1)).item() for axis in axes.T]
    assert sigreg(a, axes).item() == pytest.approx(sum(each) / 6)


def test_directions_have_length_one_and_belong_to_their_seed():
    like = torch.zeros(1)
    axes = random_directions(7, 50, 3, like)
    torch.testing.assert_close(axes.norm(dim=0), torch.ones(50))
    assert torch.equal(axes, random_directions(7, 50, 3, like))
    assert not torch.equal(axes, random_directions(7, 50, 4, like))


def test_what_does_not_fit_is_refused():
    a, _ = pair()
    with pytest.raises(ValueError, match=r"directions must be \(4, M\); got \(3, 2\)"):
        sigreg(a, torch.randn(3, 2))
    for points in (1, 4):
        with pytest.raises(ValueError, match=f"points must be an odd number of at least 3; got {points}"):
            epps_pulley(a, points)
    with pytest.raises(ValueError, match="bound must be a positive finite number; got 0"):
        epps_pulley(a, 17, 0)
    with pytest.raises(ValueError, match="directions must be at least 1; got 0"):
        LeJEPA(backbone(), AUGMENT, directions=0)


def made(weight: float, norm: bool = False) -> LeJEPA:
    return LeJEPA(backbone(norm=norm), AUGMENT, weight=weight, **small("LeJEPA", norm=norm))


def test_its_terms_are_those_of_the_formula_and_each_step_has_directions_of_its_own():
    objective, batch = made(0.3).eval(), next(blobs().batches(16, seed=3))
    rows = [objective.embedder(batch.view(AUGMENT, stream).inputs) for stream in (1, 2)]
    mean = (rows[0] + rows[1]) / 2
    found = objective(batch)
    apart = sum(((mean - own) ** 2).sum() for own in rows) / (2 * 16 * 6)
    torch.testing.assert_close(found["prediction"], 0.7 * apart)
    axes = random_directions(6, 256, 0, mean)
    torch.testing.assert_close(found["normality"], 0.3 * (sigreg(rows[0], axes) + sigreg(rows[1], axes)) / 2)
    objective.step = 1
    assert objective(batch)["normality"] != found["normality"]


def test_without_the_regularizer_all_embeddings_become_one_and_with_it_they_do_not():
    spread = {}
    for weight in (0.0, 0.05):
        objective = made(weight)
        trained(objective, epochs=40, batch_size=48)
        rows = predict(Embedder(objective.learner, None, objective.embedder.projector), blobs(300))
        spread[weight] = rows.std(0)
    assert spread[0.0].max() < 0.1 < 0.5 < spread[0.05].mean()
