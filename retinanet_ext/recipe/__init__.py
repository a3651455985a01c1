"""A training without a config: all settings from facts about data and machine.

One file per choice, each a function from facts to a value with a reason; :mod:`.choose` puts them
together, :mod:`.pace` measures how long a step takes, and :mod:`.written` is what the user sees.
"""

from .choice import Choice
from .choose import PRESETS, Wishes, choose_recipe
from .draft import Draft
from .facts import DataFacts, Machine
from .length import Pace, Plan
from .pace import measure_pace, stopwatch
from .run import default_output_dir, last_words, make_recipe, recipe_file, save_recipe

__all__ = [
    "PRESETS",
    "Choice",
    "DataFacts",
    "Draft",
    "Machine",
    "Pace",
    "Plan",
    "Wishes",
    "choose_recipe",
    "default_output_dir",
    "last_words",
    "make_recipe",
    "measure_pace",
    "recipe_file",
    "save_recipe",
    "stopwatch",
]
