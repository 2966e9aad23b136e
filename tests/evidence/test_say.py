import json

import pytest
import torch

import kdutils as kd
from kdutils.evidence.say import SAY_MIMETYPE

GAIN = kd.Estimate((0.02, 0.03, 0.04), "soft − labels", "accuracy", difference=True)
SHARE = kd.Estimate((0.5, 0.52, 0.54), "soft", "accuracy")
LOSS = kd.Estimate((1.0, 1.1, 1.2), "loss", "nats")
SPACE, MINUS = "\N{NO-BREAK SPACE}", "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("by {gain}.", f"by 3.0{SPACE}points (0.5 to 5.5)."),
        ("by {gain:mean}", f"by 3.0{SPACE}points"),
        ("from {gain:range}", f"from 0.5 to 5.5{SPACE}points"),
    ],
)
def test_an_estimate_is_written_as_a_person_would(template, text):
    assert kd.say(template, gain=GAIN).text == text


def test_shares_and_other_units_keep_theirs():
    assert kd.say("{a:mean}, {b:mean}", a=SHARE, b=LOSS).text == f"52.0{SPACE}%, 1.10"


def test_negative_numbers_have_a_minus_sign_and_zero_has_none():
    down = kd.Estimate((-0.02, -0.03, -0.04), "x", "accuracy", difference=True)
    assert kd.say("{d:mean}", d=down).text == f"{MINUS}3.0{SPACE}points"
    nothing = kd.Estimate((-0.0001, 0.0, 0.0), "x", "accuracy", difference=True)
    assert kd.say("{d:mean}", d=nothing).text == f"0.0{SPACE}points"


def test_numbers_take_the_formats_of_python():
    assert kd.say("{share:.0%} of {n:,}", share=0.25, n=1234).text == f"25{SPACE}% of 1,234"


def test_the_output_keeps_template_and_values_for_another_language():
    said = kd.say("Yes, by {gain}, with {n} seeds.", gain=GAIN, n=torch.tensor(3))
    bundle = said._repr_mimebundle_()
    record = json.loads(json.dumps(bundle[SAY_MIMETYPE]))
    assert record["template"] == "Yes, by {gain}, with {n} seeds."
    assert record["values"]["n"] == 3
    assert record["values"]["gain"]["mean"] == pytest.approx(0.03)
    assert bundle["text/markdown"] == said.text
    assert repr(said)


@pytest.mark.parametrize(
    ("template", "values", "error", "message"),
    [
        ("{gain}", {}, KeyError, "names 'gain', and the values are none"),
        ("nothing", {"gain": GAIN}, ValueError, "'gain' stands nowhere"),
        ("{gain:.1f}", {"gain": GAIN}, ValueError, "there are mean and range"),
        ("{n:mean}", {"n": 3.0}, ValueError, "3.0 cannot be written as 'mean'"),
        ("{n}", {"n": [1]}, TypeError, "n must be a number, a text or an Estimate; got list"),
    ],
)
def test_what_cannot_be_said_is_named(template, values, error, message):
    with pytest.raises(error, match=message):
        kd.say(template, **values)
