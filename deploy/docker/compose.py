"""``compose.yaml`` as Compose reads it, without Compose: variables put in, anchors resolved."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).resolve().parents[2] / "compose.yaml"

_VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-+])([^${}]*))?\}")
"""``${NAME}``, ``${NAME:-default}`` or ``${NAME:+instead}`` with nothing nested in it."""

_DOLLAR = "\0"


def interpolated(text: str, environment: Mapping[str, str]) -> str:
    """The text with variables put in, innermost first, as the Compose specification's chapter on interpolation says."""

    def value(found: re.Match[str]) -> str:
        name, how, other = found.groups()
        known = environment.get(name)
        there = bool(known) if how and how.startswith(":") else known is not None
        if how and how.endswith("+"):
            return other if there else ""
        return (known or "") if there or how is None else other

    text = text.replace("$$", _DOLLAR)
    while (replaced := _VARIABLE.sub(value, text)) != text:
        text = replaced
    return text.replace(_DOLLAR, "$")


def read(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file's content, with this process's environment unless another is given."""
    text = FILE.read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(interpolated(text, os.environ if environment is None else environment))
    return found
