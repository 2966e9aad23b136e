"""Claims and checks."""

import io
import math
import sys

import numpy as np
import pytest
import torch

from kdutils.evidence import claims
from kdutils.evidence.claims import CHECK_MIMETYPE, CLAIM_MIMETYPE, CheckError, ClaimError, check, claim
from kdutils.evidence.estimate import Estimate
from kdutils.evidence.table import Table

SURE = Estimate((0.019, 0.02, 0.021, 0.02, 0.02), "b − a", "accuracy", difference=True)
FAINT = Estimate((0.01, 0.03, 0.02, 0.02, 0.03), "b − a", "accuracy", difference=True)
ABSENT = Estimate((-0.01, 0.02, 0.03, -0.02, 0.02), "b − a", "accuracy", difference=True)


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch):
    for name in (claims.STORE, claims.RECORD):
        monkeypatch.delenv(name, raising=False)


def test_a_claim_that_holds_states_its_evidence_and_then_its_context(capsys):
    claim("b beats a", SURE > 0, context=[FAINT, "a was tuned"])
    out = capsys.readouterr().out
    assert "✓ b beats a\n    b − a: accuracy +2.0 points" in out
    assert out.index("+2.2 points") < out.index("a was tuned")


def test_a_claim_that_does_not_hold_raises_with_the_numbers():
    with pytest.raises(ClaimError, match=r"does not hold: b beats a[\s\S]*\+0.8 points"):
        claim("b beats a", ABSENT > 0)
    with pytest.raises(ClaimError, match="does not hold"):
        claim("b beats a, twice", SURE > 0, ABSENT > 0)


def test_a_faint_effect_is_a_claim_to_run_and_none_to_store(monkeypatch, capsys):
    claim("b beats a", FAINT > 0)
    monkeypatch.setenv(claims.STORE, "1")
    claim("b beats a", SURE > 0)
    with pytest.raises(ClaimError, match=r"too uncertain .* b beats a\n .*probability 0\.9\d+.* (\d+) seeds would do"):
        claim("b beats a", FAINT > 0)
    assert "✓" in capsys.readouterr().out


def test_where_a_chapter_is_repeated_a_claim_that_fails_is_shown_and_does_not_end_the_run(monkeypatch, capsys):
    monkeypatch.setenv(claims.RECORD, "1")
    claim("b beats a", ABSENT > 0)
    check("1 is 2", False, "1 and 2")
    assert capsys.readouterr().out.count("✗") == 2


@pytest.mark.parametrize(
    ("effects", "error", "message"),
    [
        ((), ValueError, "wants the effect"),
        ((SURE,), TypeError, "write 'b − a' > 0"),
        ((True,), TypeError, r"got True.*check\("),
        ((math.nan,), TypeError, "got nan"),
        (("False",), TypeError, "got 'False'"),
        ((len,), TypeError, "built-in function len"),
        ((SURE > 0, SURE.low > 0), TypeError, "got True"),
        ((Estimate((1.0, 1.0, 1.0, 1.1), "b") > 0,), ValueError, "at least 5 seeds; 'b' has 4"),
        ((Estimate((1.0, math.nan, 1.0, 1.0, 1.0), "b") > 0,), ValueError, "finite values; 'b' has"),
        ((Estimate((1.0, math.inf, 1.0, 1.0, 1.0), "b") > 0,), ValueError, "finite values"),
    ],
)
def test_a_claim_takes_nothing_but_effects_of_finite_values_over_five_seeds(effects, error, message):
    with pytest.raises(error, match=message):
        claim("b beats a", *effects)


def test_a_check_that_fails_raises_with_its_evidence():
    with pytest.raises(CheckError, match="does not hold: 1 is 2\n    1 and 2"):
        check("1 is 2", False, "1 and 2")


@pytest.mark.parametrize("true", [True, np.bool_(True), torch.tensor(True), np.float64(1) < 2])
def test_a_check_takes_the_truth_values_of_numpy_and_torch(true, capsys):
    check("1 < 2", true, "1 and 2")
    assert "≡ Checked: 1 < 2" in capsys.readouterr().out


@pytest.mark.parametrize("value", [1, "False", SURE, math.nan, None, torch.tensor(1.0), torch.tensor([True])])
def test_a_check_takes_nothing_that_is_merely_truthy(value):
    with pytest.raises(TypeError, match="holds must be True or False"):
        check("1 < 2", value, "1 and 2")


def test_a_check_wants_evidence_in_words_and_leaves_intervals_to_claims():
    with pytest.raises(ValueError, match="wants the evidence"):
        check("1 < 2", True)
    with pytest.raises(TypeError, match="evidence of a check is a text"):
        check("1 < 2", True, SURE)
    with pytest.raises(TypeError, match="state it by claim"):
        check("b beats a", SURE > 0, "numbers")


def test_a_displayed_statement_carries_a_record_that_the_book_collects():
    stated = claims.Statement("1 < 2", ("1 & 2",), confirmation=0.9999, values=(("b − a", (1.0, 2.0)),))
    bundle = stated._repr_mimebundle_()
    assert bundle[CLAIM_MIMETYPE] == {
        "sentence": "1 < 2",
        "evidence": ["1 & 2"],
        "holds": True,
        "confirmation": 0.9999,
        "values": [["b − a", [1.0, 2.0]]],
    }
    assert "1 &lt; 2" in bundle["text/html"]
    assert "1 & 2" in bundle["text/plain"]
    checked = claims.Statement("1 < 2", ("1 & 2",), CHECK_MIMETYPE)._repr_mimebundle_()
    assert CLAIM_MIMETYPE not in checked
    assert "kd-check" in checked["text/html"]


def test_claims_checks_and_tables_are_printed_on_a_terminal_without_utf_8(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    claim("b beats a", SURE > 0)
    check("1 ≤ 2", True, "1 × 2")
    print(Table(["", "a − b"], [["größe", "1 ± 2"]], "95 % interval"))
    terminal.flush()
    shown = terminal.buffer.getvalue().decode()
    assert "[holds] b beats a" in shown
    assert "1 <= 2" in shown
    assert "+/- 2" in shown
