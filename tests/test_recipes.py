"""Recipes: what they set exists, and `paper` is what was published."""

from __future__ import annotations

import dataclasses

import pytest

from casm_bench import registry
from casm_bench.recipes import RECIPES
from casm_bench.settings import check_fields


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_recipes_set_what_methods_have(recipe):
    for name, values in recipe.methods.items():
        check_fields(name, registry.get(name), values)


def test_the_paper_recipe_trains_as_published():
    """Dabkowski & Gal's schedule (their code), and VGG's S with two fully connected layers."""
    expected = {
        **{"selector_steps": 8500, "selector_batch_size": 128, "selector_fakes": 0.5},
        **{"mask_steps": 3000, "mask_batch_size": 64, "mask_fakes": 0.3},
        **{"learning_rate": 1e-3, "weight_decay": 1e-4, "rate_falls_every": 4000},
        **{"area": 8, "area_power": 0.3, "smoothness": 0.005, "preserver": 0.3},
        **{"destroyer_margin": 5, "preserver_margin": 1, "blur": 11},
        **{"least_area": 0.3, "width": 64, "scale": "doubled"},
    }
    assert settings_of("masking-model").items() >= expected.items()
    expected = {
        **{"backbone": "vgg16.tv_in1k", "scale": 384},
        **{"regression": "per-class", "fine_tune": "connected"},
        **{"batch_size": 256, "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4},
    }
    assert settings_of("vgg-loc").items() >= expected.items()
    expected = {"taps": (3, 4), "lambda_r": None, "lambda_in": 1.0, "smoothness": 1e-3}
    assert settings_of("casm-inout").items() >= expected.items()


def settings_of(name):
    """A method's fields under the recipe `paper`."""
    defaults = {f.name: f.default for f in dataclasses.fields(registry.get(name))}
    return defaults | RECIPES["paper"].methods.get(name, {})
