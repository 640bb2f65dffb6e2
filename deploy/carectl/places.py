"""Where the services are and who is asking: from the environment, a file, or the stack that runs on this machine."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "CARECTL_CONFIG"
ADDRESSES = "CARECTL_SERVICES"
TOKEN = "CARECTL_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE = "CARECTL_TOKEN_FILE"  # noqa: S105
STACK = "CARECTL_STACK"
JAEGER = "JAEGER_URL"
TRACES = "CARECTL_TRACES"

USUAL_CONFIG = Path("~/.config/carectl.toml")
USUAL_STACK = Path(".data") / "embedded"


class Misconfigured(Exception):
    """It is not known where the services are, or who asks."""


@dataclass(frozen=True, slots=True)
class Places:
    """Base URLs by service; ``token`` gives the bearer token; where traces are found: Jaeger, or files of spans."""

    urls: Mapping[str, str]
    token: Callable[[], str]
    jaeger: str | None = None
    traces: Path | None = None


def places(environment: Mapping[str, str] = os.environ, config: Path | None = None) -> Places:
    """What the environment says, then a file, then a stack that runs here. Raises Misconfigured."""
    told = _file(environment, config)
    stack = _stack(environment)
    urls = _urls(environment, told, stack)
    if not urls:
        raise Misconfigured(
            f"it is not known where the services are: start a stack here (`make up`), or name them in {ADDRESSES} "
            f"(intake=http://...,referrals=http://...), or in [services] of {CONFIG} or {USUAL_CONFIG}"
        )
    traces = environment.get(TRACES) or told.get("traces") or (stack and stack / "traces")
    return Places(
        urls,
        _token(environment, told, stack),
        environment.get(JAEGER) or told.get("jaeger"),
        Path(traces) if traces else None,
    )


def _file(environment: Mapping[str, str], given: Path | None) -> dict[str, Any]:
    path = given or (Path(environment[CONFIG]) if CONFIG in environment else USUAL_CONFIG.expanduser())
    if not path.is_file():
        if given is not None or CONFIG in environment:
            raise Misconfigured(f"there is no file {path}")
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from None


def _stack(environment: Mapping[str, str]) -> Path | None:
    """The folder of the embedded or native stack that runs here, as far as its state file says."""
    folder = Path(environment.get(STACK) or USUAL_STACK)
    return folder if (folder / "stack.json").is_file() else None


def _urls(environment: Mapping[str, str], told: Mapping[str, Any], stack: Path | None) -> dict[str, str]:
    if given := environment.get(ADDRESSES):
        pairs = (pair.partition("=") for pair in given.split(",") if pair.strip())
        return {name.strip(): url.strip().rstrip("/") for name, _, url in pairs}
    if named := told.get("services"):
        return {str(name): str(url).rstrip("/") for name, url in named.items()}
    if stack is None:
        return {}
    state = json.loads((stack / "stack.json").read_text(encoding="utf-8"))
    services = [program["name"] for program in state["programs"] if program["group"] == "services"]
    return {name: state["addresses"][name] for name in services}


def _token(environment: Mapping[str, str], told: Mapping[str, Any], stack: Path | None) -> Callable[[], str]:
    def token() -> str:
        if given := environment.get(TOKEN):
            return given
        if file := environment.get(TOKEN_FILE) or told.get("token_file"):
            try:
                return Path(file).expanduser().read_text(encoding="utf-8").strip()
            except OSError as error:
                raise Misconfigured(f"the token cannot be read: {error}") from None
        if stack is not None:
            return _minted(stack)
        raise Misconfigured(f"a token of an operator is needed: {TOKEN}, {TOKEN_FILE}, or token_file in {CONFIG}")

    return token


def _minted(stack: Path) -> str:
    """A token of the development issuer: whoever may read the stack's folder may have one."""
    from deploy.simulators.issuer import Issuer  # a development stack's; slow to import, and not where it is not needed

    return Issuer(stack / "outside" / "issuer").mint("operator", subject="developer")
