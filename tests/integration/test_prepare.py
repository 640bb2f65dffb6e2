"""What prepares a store for containers: users that log in, passwords that follow, a clock that stays."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from deploy.docker import prepare


def logs_in(uri: str, service: str, password: str) -> bool:
    client: prepare.Client = MongoClient(uri, username=service, password=password, authSource=service)
    with client:
        try:
            client[service].command("ping")
            return True
        except OperationFailure:
            return False


def test_a_services_user_logs_in_with_the_password_that_was_given_last(mongodb_uri: str) -> None:
    service = f"service-{uuid4().hex}"
    client: prepare.Client = MongoClient(mongodb_uri)
    with client:
        prepare.ensure_user(client, service, "first")
        assert logs_in(mongodb_uri, service, "first")
        prepare.ensure_user(client, service, "second")
        assert logs_in(mongodb_uri, service, "second")
        assert not logs_in(mongodb_uri, service, "first")
        (user,) = client[service].command("usersInfo", service)["users"]
        assert [(role["role"], role["db"]) for role in user["roles"]] == [("readWrite", service)]


def test_the_clock_begins_at_no_offset_and_is_left_as_it_stands(tmp_path: Path) -> None:
    clock = tmp_path / "offset"
    prepare.ensure_clock(clock)
    assert struct.unpack("<d", clock.read_bytes()) == (0.0,)
    clock.write_bytes(struct.pack("<d", 60.0))
    prepare.ensure_clock(clock)
    assert struct.unpack("<d", clock.read_bytes()) == (60.0,)
    assert list(tmp_path.iterdir()) == [clock]


def test_a_store_that_does_not_let_the_administrator_in_is_told_without_a_secret(
    mongodb_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for service in prepare.PROCESSES:
        monkeypatch.setenv(f"{service.upper()}_STORE_PASSWORD", "canary-password")
    address = mongodb_uri.removeprefix("mongodb://")
    monkeypatch.setenv("MONGODB_ADMIN_URI", f"mongodb://root:canary-root@{address}/?authSource=admin")
    assert prepare.main() == 1
    told = capsys.readouterr()
    assert "the store could not be prepared" in told.err
    assert "canary" not in told.out + told.err


def test_a_password_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("INTAKE_STORE_PASSWORD", raising=False)
    assert prepare.main() == 2
    assert capsys.readouterr().err == "INTAKE_STORE_PASSWORD is not set\n"
