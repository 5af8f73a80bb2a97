"""Recipes: what they set exists, and `paper` is what was published."""

from __future__ import annotations

import dataclasses

import pytest

from casm_bench import registry
from casm_bench.data.catalog import check_loading
from casm_bench.recipes import RECIPES, Pretraining, Recipe
from casm_bench.settings import check_fields


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_recipes_set_what_methods_have(recipe):
    for name, values in recipe.methods.items():
        check_fields(name, registry.get(name), values)
    for name, options in recipe.data.items():
        check_loading(name, options)


def test_defaults_lie_within_their_own_bounds():
    classes = [registry.get(facts.name) for facts in registry.all_facts()]
    for cls in (*classes, Recipe, Pretraining):
        given = {f.name: f.default for f in dataclasses.fields(cls) if f.init}
        check_fields(
            cls.__name__, cls, {k: v for k, v in given.items() if v is not dataclasses.MISSING}
        )
    for recipe in RECIPES.values():
        settable = {f.name for f in dataclasses.fields(Recipe)}
        settable -= {"name", "summary", "command", "cost"}
        check_fields("recipe", Recipe, {name: getattr(recipe, name) for name in settable})
        check_fields("pretraining", Pretraining, dataclasses.asdict(recipe.pretraining))


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
