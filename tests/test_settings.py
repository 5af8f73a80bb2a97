"""`--set`: parsing and checking."""

from __future__ import annotations

import dataclasses
import math

import pytest

from casm_bench.errors import UsageError
from casm_bench.methods.casm import CASM
from casm_bench.recipes import Recipe
from casm_bench.settings import (
    Amount,
    Count,
    Fraction,
    Positive,
    Share,
    check_fields,
    check_options,
    parse_settings,
)


def test_literals_and_words():
    given = ["casm.lambda_r=5", "casm.strategy=L", "data.stripes=0.03", "casm.gated=False"]
    assert parse_settings(given) == {
        "casm": {"lambda_r": 5, "strategy": "L", "gated": False},
        "data": {"stripes": 0.03},
    }


@pytest.mark.parametrize("text", ["casm", "casm=5", "casm.lambda_r", ".x=1", "casm.=1", "a.b c=1"])
def test_other_forms_are_refused(text):
    with pytest.raises(UsageError, match="METHOD.FIELD=VALUE"):
        parse_settings([text])


def test_values_that_fit():
    check_fields("casm", CASM, {"strategy": "FL", "lambda_r": None, "epochs": 3, "gated": True})
    check_fields("casm", CASM, {"lambda_r": 5, "masker_rate": 1e-4})
    check_fields("recipe", Recipe, {"batch_size": 4, "classifier": "resnet18"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "L99"}, "one of F, L, FL, L100, L1000, not 'L99'"),
        ({"epochs": "many"}, "must be int"),
        ({"epochs": 1.5}, "must be int"),
        ({"epochs": True}, "must be int"),
        ({"gated": 1}, "must be bool"),
        ({"lambda_r": "x"}, "must be float of at least 0 or one of search or None"),
        ({"lamda_r": 1}, "Did you mean 'lambda_r'"),
        ({"classifier": "resnet18"}, "no such field"),
        ({"history": []}, "no such field"),
    ],
)
def test_values_that_do_not_fit_are_named(values, message):
    with pytest.raises(UsageError, match=message):
        check_fields("casm", CASM, values)


NUMBERS = (-1, 0, 0.5, 1, 2, 1.5, math.inf, -math.inf, math.nan, True)


@pytest.mark.parametrize(
    ("hint", "taken", "words"),
    [
        (Count, (1, 2), "int of at least 1"),
        (Amount, (0, 0.5, 1, 2, 1.5), "float of at least 0"),
        (Positive, (0.5, 1, 2, 1.5), "float above 0"),
        (Share, (0.5, 1), "float above 0 and up to 1"),
        (Fraction, (0, 0.5, 1), "float from 0 to 1"),
        (Count | None, (1, 2, None), "int of at least 1 or None"),
        (tuple[Share, ...], ((0.5,), (1, 0.5)), "tuple, each float above 0 and up to 1"),
        (tuple[Share, Share], ((1, 0.5),), "tuple of 2, each float above 0 and up to 1"),
    ],
)
def test_numbers_are_taken_within_their_bounds(hint, taken, words):
    made = dataclasses.make_dataclass("Made", [("x", hint, None)])
    values = (*NUMBERS, None, (), (0.5,), (1, 0.5), (0.5, 0), "1")
    for value in values:
        if any(value is one for one in taken) or value in taken and value is not True:
            check_fields("made", made, {"x": value})
        else:
            with pytest.raises(UsageError) as refused:
                check_fields("made", made, {"x": value})
            assert f"--set made.x={value}: must be {words}, not {value!r}." in str(refused.value)


def test_options_of_functions():
    def load(root, *, seed: int = 0, size: Count = 3, **drawing):
        """Options of its own, and others that it passes on."""

    check_options("data", load, {"size": 1, "colour": 4})
    with pytest.raises(UsageError, match="data.size=0: must be int of at least 1, not 0"):
        check_options("data", load, {"size": 0})
    with pytest.raises(UsageError, match="data.seed: data has no such field. It has size"):
        check_options("data", load, {"seed": 0})


def test_options_of_functions_that_pass_none_on():
    def load(root, *, seed: int = 0, pictures: int = 3):
        """Options of its own."""

    with pytest.raises(UsageError, match="Did you mean 'pictures'"):
        check_options("data", load, {"picture": 4})
    with pytest.raises(UsageError, match="must be int, not 'many'"):
        check_options("data", load, {"pictures": "many"})
