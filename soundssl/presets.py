"""Presets: one rule for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def in_force(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a preset with what was given explicitly in their place; None was not given.

    >>> in_force({"k": 200, "vote": "majority"}, {"k": 5, "level": None})
    {'k': 5, 'vote': 'majority'}
    """
    return {**preset, **{name: value for name, value in given.items() if value is not None}}
