"""`--set`: parsing and checking."""

from __future__ import annotations

import pytest

from casm_bench.errors import UsageError
from casm_bench.methods.casm import CASM
from casm_bench.recipes import Recipe
from casm_bench.settings import check_fields, parse_settings


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
        ({"lambda_r": "x"}, "must be float or one of search or None"),
        ({"lamda_r": 1}, "Did you mean 'lambda_r'"),
        ({"classifier": "resnet18"}, "no such field"),
        ({"history": []}, "no such field"),
    ],
)
def test_values_that_do_not_fit_are_named(values, message):
    with pytest.raises(UsageError, match=message):
        check_fields("casm", CASM, values)
