"""Recipes: YAML files over typed dataclasses. A recipe is data and may come from a stranger: it cannot name code,
read the environment, or bring keys that the dataclasses do not have."""

from nemo_summer.config.composed import load_recipe, read_recipe, to_yaml, write_recipe
from nemo_summer.config.files import RecipeError, recipe_names

__all__ = ["RecipeError", "load_recipe", "read_recipe", "recipe_names", "to_yaml", "write_recipe"]
