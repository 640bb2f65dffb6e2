"""``python -m deploy.k8s``: write what is made of the services anew, into ``base`` and ``components/autoscaling``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from deploy.embedded.catalogue import SERVICES
from deploy.k8s.manifests import Manifest, autoscaling, base
from deploy.roles import declared, roles_of

FOLDER = Path(__file__).parent

HEAD = "# Made by `python -m deploy.k8s` of what the service declares. Change that, or patch this in an overlay.\n"


class _Plain(yaml.SafeDumper):
    """Writes everything out where it stands: no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def made() -> Mapping[Path, str]:
    """Every file that is made, with its text."""
    files = {}
    for service in SERVICES:
        roles, name = roles_of(declared(service)), f"{service.replace('_', '-')}.yaml"
        files[FOLDER / "base" / name] = _text(base(roles))
        files[FOLDER / "components" / "autoscaling" / name] = _text(autoscaling(roles))
    return files


def _text(manifests: Iterable[Manifest]) -> str:
    return HEAD + yaml.dump_all(manifests, Dumper=_Plain, sort_keys=False, width=120)


def main() -> None:
    """Write them."""
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(FOLDER))


if __name__ == "__main__":
    main()
