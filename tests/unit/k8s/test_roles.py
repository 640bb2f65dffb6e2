"""Every role may be a process of its own on one machine too, as the tests of releases and restarts have it."""

from __future__ import annotations

from pathlib import Path

from deploy.embedded.catalogue import SERVICES, Catalogue
from deploy.embedded.foundation import Embedded
from deploy.roles import all_roles


def test_a_stack_with_its_roles_apart_runs_each_once_and_a_service_is_reached_at_its_api(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, Embedded(), {}, apart=True)
    programs = {program.name: program for program in catalogue.programs()}
    roles = {role.process: role for role in all_roles()}
    assert set(programs) == {"broker", "store", "simulators", *roles}
    for process, role in roles.items():
        assert programs[process].argv[-2:] == [f"services.{role.service}", role.name]
        assert programs[process].environment["MONGODB_DATABASE"] == role.service
    ports = [port for program in programs.values() for port in program.ports]
    assert len(set(ports)) == len(ports)
    addresses = catalogue.addresses()
    for service in SERVICES:
        assert addresses[service] == addresses[f"{service}-api".replace("_", "-")]
