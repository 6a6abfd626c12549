"""docs/configuration.md lists every setting with its default and its valid values."""

import re
from typing import Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from service.settings import Settings
from tests.docs import markdown

ROWS = {row[0].strip("`"): row[1:] for row in markdown.table_rows(markdown.document("docs/configuration.md"))}
FIELDS = {name.upper(): field for name, field in Settings.model_fields.items()}
COMPUTED_DEFAULTS = {
    "SESSION_DATA_DIR": "`$XDG_STATE_HOME/session-service`",
    "SESSION_GUESSES_PER_ADDRESS": "a tenth of the rate",
    "SESSION_GUESSES_PER_CALLER": "a tenth of the rate",
}


def bounds_of(field: FieldInfo) -> list[float]:
    """Return the minimum and the maximum, or an empty list if the setting has none of its own."""
    minima = [float(str(rule.ge)) for rule in field.metadata if isinstance(rule, Ge)]
    maxima = [float(str(rule.le)) for rule in field.metadata if isinstance(rule, Le)]
    return minima + maxima


def written(default: object) -> str:
    match default:
        case None | "":
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case _:
            return f"`{default}`"


BOUNDED = {name: bounds for name, field in FIELDS.items() if (bounds := bounds_of(field))}
CHOICES = {
    name: set(get_args(field.annotation)) for name, field in FIELDS.items() if get_origin(field.annotation) is Literal
}


def test_every_setting_is_listed_and_no_other() -> None:
    assert ROWS.keys() == FIELDS.keys()


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_the_default_is_right(name: str) -> None:
    assert ROWS[name][0] == COMPUTED_DEFAULTS.get(name, written(FIELDS[name].default))


@pytest.mark.parametrize("name", sorted(BOUNDED))
def test_the_bounds_are_right(name: str) -> None:
    assert [float(number) for number in ROWS[name][1].split(" to ")] == BOUNDED[name]


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_the_choices_are_right(name: str) -> None:
    assert set(re.findall(r"`(\w+)`", ROWS[name][1])) == CHOICES[name]
