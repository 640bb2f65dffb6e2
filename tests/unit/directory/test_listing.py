"""HSDS records: what is taken, what is derived from them, and how they age."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from services.directory import hsds
from services.directory.model import listing
from services.directory.model.listing import (
    CONTACTS_KEPT,
    VERIFY_EVERY,
    ContactChannel,
    ContactResult,
    LogContact,
    VerifyService,
)
from services.directory.model.needs import language, need_of
from services.directory.model.places import area_key, home_of, reach_of
from shared.contracts.directory import NeedServed, ServiceListed, ServiceStatus
from shared.contracts.intake import Barrier
from shared.kit.decisions import NO_FACTS, Due
from shared.kit.errors import IllegalTransition, Invalid, Malformed
from tests.unit.directory.cases import NOW, listed, record, uid

CASES = Path(os.environ.get("CASES", Path(__file__).parents[4] / "shared" / "data"))
EXAMPLE = CASES / "hsds" / "examples" / "service_full.json"


def test_listing_a_service_says_what_it_offers_and_to_whom() -> None:
    service = listed(record("Rides", terms=("transportation", "interpreter"), languages=("en", "spa")))
    assert service.recorded() == [
        ServiceListed(
            service_id=service.id,
            status=ServiceStatus.ACTIVE,
            needs=(Barrier.INTERPRETER, Barrier.TRANSPORTATION),
            languages=("en", "es"),
        ),
        NeedServed(service_id=service.id, need=Barrier.INTERPRETER),
        NeedServed(service_id=service.id, need=Barrier.TRANSPORTATION),
    ]
    assert service.supply == ("interpreter@zip3:606", "transportation@zip3:606")


def test_the_same_record_put_again_changes_nothing() -> None:
    service = listed(record("Rides"))
    service.recorded().clear()
    before = service.model_dump()
    assert listed(record("Rides"), service, NOW + timedelta(days=1)).model_dump() == before
    assert not service.recorded()


def test_an_inactive_service_supplies_nothing_and_serves_no_need() -> None:
    service = listed(record("Rides"))
    service.recorded().clear()
    listed(record("Rides", status="inactive"), service)
    assert service.supply == ()
    assert [type(event) for event in service.recorded()] == [ServiceListed]


def test_a_defunct_service_comes_back_only_by_way_of_inactive() -> None:
    service = listed(record("Rides", status="defunct"))
    with pytest.raises(IllegalTransition):
        listed(record("Rides"), service)
    listed(record("Rides", status="inactive"), service)
    assert listed(record("Rides"), service).state is ServiceStatus.ACTIVE


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("id", {"id": "42"}),
        ("name", {"name": ""}),
        ("status", {"status": "open"}),
        ("organization", {"organization": None}),
        ("organization.description", {"organization": {"id": uid("o"), "name": "Org"}}),
        ("phones[0].number", {"phones": [{"id": uid("p")}]}),
        ("schedules[0].freq", {"schedules": [{"id": uid("s"), "freq": "YEARLY"}]}),
        ("schedules[0].byday", {"schedules": [{"id": uid("s"), "byday": "SOMEDAY"}]}),
        ("schedules[0].opens_at", {"schedules": [{"id": uid("s"), "opens_at": "25:00"}]}),
        ("service_at_locations[0].id", {"service_at_locations": [{}]}),
        (
            "service_at_locations[0].location.location_type",
            {"service_at_locations": [{"id": uid("l"), "location": {"id": uid("m"), "location_type": "tent"}}]},
        ),
        (
            "attributes[0].taxonomy_term.description",
            {"attributes": [{"id": uid("a"), "taxonomy_term": {"id": uid("t"), "name": "Food"}}]},
        ),
        ("languages[0].id", {"languages": [{"code": "es"}]}),
        ("assured_date", {"assured_date": "last week"}),
    ],
)
def test_a_record_that_breaks_the_specification_is_refused_by_path(path: str, change: dict[str, object]) -> None:
    body = {**record("Rides"), **change}
    with pytest.raises(Invalid) as refused:
        hsds.list_command(uid("Rides"), body)
    assert path in [flaw.path for flaw in refused.value.flaws]


def test_an_address_names_each_missing_part() -> None:
    location = {"id": uid("m"), "location_type": "physical", "addresses": [{"id": uid("a")}]}
    body = record("Rides", service_at_locations=[{"id": uid("l"), "location": location}])
    with pytest.raises(Invalid) as refused:
        hsds.list_command(body["id"], body)
    missing = {flaw.path.rpartition(".")[2] for flaw in refused.value.flaws}
    assert missing == {"address_1", "city", "state_province", "postal_code", "country", "address_type"}


def test_a_refusal_does_not_repeat_what_was_given() -> None:
    body = record("Rides", status="canary-4711", email=["canary-4711"], phones=[{"id": "canary-4711", "number": "1"}])
    with pytest.raises(Invalid) as refused:
        hsds.list_command(body["id"], body)
    assert "canary" not in str([(flaw.path, flaw.reason) for flaw in refused.value.flaws])


def test_a_record_put_to_another_address_is_refused() -> None:
    body = record("Rides")
    with pytest.raises(Invalid) as refused:
        listing.list_service(None, hsds.list_command(uid("other"), body), NO_FACTS, NOW)
    assert refused.value.flaws[0].path == "id"


def test_numbers_that_json_has_not_are_refused() -> None:
    with pytest.raises(Malformed):
        hsds.list_command(uid("Rides"), record("Rides", minimum_age=float("nan")))


def test_what_a_profile_adds_is_given_back() -> None:
    service = listed(record("Rides", x_wheelchair={"vans": 12345678901234567890}))
    assert hsds.full(service)["x_wheelchair"] == {"vans": 12345678901234567890}


def test_a_listing_shows_one_to_one_parts_only() -> None:
    shown = hsds.summary(listed(record("Rides")))
    assert isinstance(shown["organization"], dict)
    assert not any(isinstance(value, list) for value in shown.values())


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("60601", "zip:60601"),
        ("60601-1234", "zip:60601"),
        ("606*", "zip3:606"),
        ("US-IL", "state:IL"),
        ("il", "state:IL"),
        ("New  York NY", "city:NY/new york"),
        ("United States", "nation"),
        ("Nationwide", "nation"),
        ("all residents of the greater area", None),
        ("", None),
    ],
)
def test_a_stated_area_means_a_place_or_nothing(text: str, key: str | None) -> None:
    assert area_key(text) == key


def test_a_service_without_stated_area_reaches_the_surroundings_of_its_places() -> None:
    address = {
        "id": uid("a"), "address_1": "1 Main Street", "city": "Springfield", "state_province": "IL",
        "postal_code": "62701", "country": "US", "address_type": "physical",
    }  # fmt: skip
    location = {"id": uid("m"), "location_type": "physical", "addresses": [address]}
    body = record("Rides", areas=(), service_at_locations=[{"id": uid("l"), "location": location}])
    assert listed(body).reach == ("city:IL/springfield", "zip3:627")
    assert "zip3:627" in home_of("62702", "Springfield", "IL")


def test_a_service_without_area_and_place_is_virtual() -> None:
    assert listed(record("Line", areas=())).reach == ("virtual",)
    assert home_of(None, None, None) == ("nation", "virtual")


@pytest.mark.parametrize(
    ("code", "name", "need"),
    [
        ("transportation", "x", Barrier.TRANSPORTATION),
        ("x", "Transportation for Healthcare", Barrier.TRANSPORTATION),
        (None, "Translation & Interpretation", Barrier.INTERPRETER),
        (None, "PRESCRIPTION EXPENSE ASSISTANCE", Barrier.PRESCRIPTION_ASSISTANCE),
        (None, "Food Pantry", None),
    ],
)
def test_a_taxonomy_term_stands_for_a_need(code: str | None, name: str, need: Barrier | None) -> None:
    body = record("Rides")
    body["attributes"][0]["taxonomy_term"] |= {"code": code, "name": name}
    assert need_of(hsds.list_command(body["id"], body).service.terms()[0]) is need


@pytest.mark.parametrize(
    ("code", "one"), [("spa", "es"), ("es-MX", "es"), ("EN_us", "en"), ("chi", "zh"), ("yue", "yue")]
)
def test_language_codes_are_brought_to_one_spelling(code: str, one: str) -> None:
    assert language(code) == one


def test_a_record_that_is_not_verified_in_time_goes_stale_until_somebody_verifies_it() -> None:
    service = listed(record("Rides"))
    assert service.timers == {"verify": NOW + VERIFY_EVERY}
    listing.verification_due(service, Due("verify", NOW), NO_FACTS, NOW + VERIFY_EVERY)
    assert service.stale
    listing.verify_service(service, VerifyService("editor"), NO_FACTS, NOW + VERIFY_EVERY)
    assert (service.stale, service.timers["verify"]) == (False, NOW + 2 * VERIFY_EVERY)
    assert hsds.full(service)["assured_date"] == (NOW + VERIFY_EVERY).date().isoformat()


def test_an_older_assurance_does_not_undo_a_verification() -> None:
    service = listed(record("Rides"))
    listing.verify_service(service, VerifyService("editor"), NO_FACTS, NOW)
    listed(record("Rides", assured_date="2024-01-01"), service)
    assert (service.verified_at, service.stale) == (NOW, False)


def test_the_contact_log_is_bounded_and_a_wrong_number_makes_the_record_stale() -> None:
    service = listed(record("Rides"))
    for _ in range(CONTACTS_KEPT + 5):
        listing.log_contact(service, LogContact("editor", ContactChannel.PHONE, ContactResult.REACHED), NO_FACTS, NOW)
    assert (len(service.contacts), service.stale) == (CONTACTS_KEPT, False)
    listing.log_contact(service, LogContact("editor", ContactChannel.PHONE, ContactResult.WRONG_NUMBER), NO_FACTS, NOW)
    assert service.stale


@pytest.mark.parametrize(
    ("total", "number", "size", "pages", "last"),
    [(0, 1, 10, 1, True), (10, 1, 10, 1, True), (11, 1, 10, 2, False), (11, 2, 10, 2, True), (11, 9, 10, 2, True)],
)
def test_a_page_counts_as_the_specification_says(total: int, number: int, size: int, pages: int, last: bool) -> None:
    start = (number - 1) * size
    contents = list(range(total))[start : start + size]
    envelope = hsds.page(contents, total, number, size)
    assert (envelope["total_items"], envelope["total_pages"], envelope["last_page"]) == (total, pages, last)
    assert (envelope["size"], envelope["empty"]) == (len(contents), not contents)


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the HSDS examples are not here (CASES)")
def test_the_specifications_own_example_is_taken_as_it_is() -> None:
    body = hsds.records(EXAMPLE.read_text())[0]
    service = listed(body)
    shown = hsds.full(service)
    assert {name for name in body if shown[name] != body[name]} == {"last_modified"}
    assert service.languages == ("ur",)
    assert service.stale
    assert service.reach == reach_of(hsds.list_command(service.id, body).service) == ()


def test_records_are_read_from_a_service_a_list_or_a_page() -> None:
    body = record("Rides")
    for shape in (body, [body], hsds.page([body], 1, 1, 10)):
        assert hsds.records(json.dumps(shape)) == [body]
    for broken in ("{", "3", "[1]"):
        with pytest.raises(Malformed):
            hsds.records(broken)
