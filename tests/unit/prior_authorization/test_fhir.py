"""Subscribers read and search Claim, ClaimResponse and Task as FHIR R4: all items, ids and codes, page by page."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from services.prior_authorization import fhir
from services.prior_authorization.model import Authorization, State
from services.prior_authorization.model.answers import Grant, ItemRuling
from services.prior_authorization.model.items import Item, ServiceKind
from shared.contracts.base import Coding
from shared.contracts.prior_authorization import ReviewAction
from shared.kit.auth import Role
from shared.kit.fhir import parse
from tests.unit.prior_authorization.cases import CONSULT, CPT, PATIENT, PAYER_ID, at_state, uid
from tests.unit.prior_authorization.world import World

KINDS = ("Claim", "ClaimResponse", "Task")
NPI = "1234567893"
ASKER = fhir.Asker(NPI, "http://payer.test")


async def get(world: World, path: str, role: Role = Role.SERVICE) -> httpx.Response:
    async with world.harness.client(role) as client:
        return await client.get(path)


async def three() -> tuple[World, list[str]]:
    """Three authorizations of different patients: approved, pended, denied in the end."""
    world = World()
    ids = []
    for name, words in (("tess", "APPROVE"), ("tom", "PEND-POLL"), ("ann", "DENY")):
        await world.know(name, f"SBX-{words}-1")
        ids.append(await world.refer(name))
    await world.until(1)
    return world, ids


def shown(document: Authorization) -> list[fhir.Resource]:
    return [fhir.claim(document, NPI), fhir.claim_response(document), fhir.task(document, ASKER)]


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_valid_fhir_and_says_nothing_of_the_person(state: State) -> None:
    document = at_state(state)
    for resource in shown(document):
        parse(resource)
        told = str(resource)
        assert PATIENT in told
        assert not any(word in told for word in ("Canaria", "Tess", "SBX-", "1980"))


def test_all_items_are_shown_in_what_was_asked_and_in_what_was_answered() -> None:
    document = at_state(State.APPROVED)
    second = Item(sequence=2, service=Coding(system=CPT, code="70553"), kind=ServiceKind.MEDICAL_SERVICES, place="11")
    document.items = (*document.items, second)
    asked, answered, _ = shown(document)
    assert [(item["sequence"], item["productOrService"]["coding"][0]["code"]) for item in asked["item"]] == [  # type: ignore
        (1, CONSULT.code),
        (2, "70553"),
    ]
    assert [item["itemSequence"] for item in answered["item"]] == [1, 2]  # type: ignore[attr-defined]
    for resource in (asked, answered):
        parse(resource)


def test_an_item_is_answered_in_its_own_words_and_what_is_granted_in_its_place_is_added() -> None:
    document = at_state(State.APPROVED)
    second = Item(sequence=2, service=Coding(system=CPT, code="70553"), kind=ServiceKind.MEDICAL_SERVICES)
    third = Item(sequence=3, service=Coding(system=CPT, code="45378"))
    document.items = (*document.items, second, third)
    other = Grant(service=Coding(system=CPT, code="70551"), units=1)
    assert document.current is not None
    document.current.items = (
        ItemRuling(sequence=1, action=ReviewAction.NOT_CERTIFIED, reasons=("82",)),
        ItemRuling(sequence=2, action=ReviewAction.MODIFIED, number="AUTH-7", units=1, granted=(other,)),
    )
    answered = fhir.claim_response(document)
    parse(answered)
    actions = [str(item["adjudication"]).partition("reviewActionCode")[2][:140] for item in answered["item"]]  # type: ignore[attr-defined]
    assert ["'A3'" in actions[0], "'A6'" in actions[1], actions[2]] == [True, True, ""]
    (added,) = answered["addItem"]  # type: ignore[misc]
    assert (added["itemSequence"], added["productOrService"]["coding"][0]["code"]) == ([2], "70551")  # type: ignore[index]


def test_a_task_asks_for_the_evidence_that_is_wanting() -> None:
    document = at_state(State.AWAITING_EVIDENCE)
    task = fhir.task(document, ASKER)
    parse(task)
    assert task["code"]["coding"][0]["code"] == "attachment-request-code"  # type: ignore[index]
    assert len(task["input"]) >= 1  # type: ignore[arg-type]
    assert document.wanting


def test_a_task_names_who_owes_the_next_step_until_when() -> None:
    pended = fhir.task(at_state(State.PENDED), ASKER)
    assert (pended["status"], pended["owner"]["identifier"]["value"]) == ("in-progress", PAYER_ID)  # type: ignore[index]
    assert pended["restriction"]["period"]["end"].startswith("2026-03-")  # type: ignore[index]
    denied = fhir.task(at_state(State.DENIED), ASKER)
    assert (denied["status"], denied["owner"]["identifier"]["value"]) == ("requested", "coordinator")  # type: ignore[index]
    assert fhir.task(at_state(State.APPROVED), ASKER)["status"] == "completed"
    assert fhir.task(at_state(State.WITHDRAWN), ASKER)["status"] == "cancelled"


@pytest.mark.parametrize("kind", KINDS)
async def test_each_is_read_and_found_by_patient_and_id(kind: str) -> None:
    world, (tess, *_) = await three()
    read = await get(world, f"/fhir/{kind}/{tess}")
    assert read.headers["content-type"] == "application/fhir+json"
    assert read.headers["ETag"] == f'"{read.json()["meta"]["versionId"]}"'
    parse(read.json(), kind)
    assert (await get(world, f"/fhir/{kind}/{uid('nothing')}")).status_code == 404
    for query in (f"patient=Patient/{uid('patient', 'tess')}", f"patient={uid('patient', 'tess')}", f"_id={tess}"):
        bundle = await get(world, f"/fhir/{kind}?{query}")
        parse(bundle.json(), "Bundle")
        assert bundle.json()["type"] == "searchset"
        assert [entry["resource"] for entry in bundle.json()["entry"]] == [read.json()]
        assert bundle.json()["entry"][0]["fullUrl"].endswith(f"/fhir/{kind}/{tess}")
    assert "entry" not in (await get(world, f"/fhir/{kind}?patient={uid('patient', 'nobody')}")).json()


async def found(world: World, query: str) -> set[str]:
    answer = await get(world, f"/fhir/{query}")
    assert answer.status_code == 200, answer.text
    return {entry["resource"]["id"] for entry in answer.json().get("entry", [])}


async def test_a_search_is_narrowed_by_request_payer_status_identifier_and_date() -> None:
    world, (tess, tom, ann) = await three()
    assert await found(world, f"ClaimResponse?request=Claim/{tom}") == {tom}
    assert await found(world, f"Task?focus=Claim/{tom}") == {tom}
    assert await found(world, f"ClaimResponse?insurer={PAYER_ID}") == {tess, tom, ann}
    assert await found(world, f"ClaimResponse?insurer=urn:carerelay:payer|{PAYER_ID}&_id={ann}") == {ann}
    claim = (await world.of("ann")).claim_id
    assert await found(world, f"Claim?identifier=urn:carerelay:claim|{claim}") == {ann}
    assert await found(world, f"ClaimResponse?identifier={(await world.of('ann')).appeal_id}") == {ann}
    assert await found(world, f"ClaimResponse?identifier={claim}&patient={uid('patient', 'tom')}") == set()
    patient = f"ClaimResponse?patient={uid('patient', 'tess')}"
    day = f"{world.start:%Y-%m-%d}"
    for query, hit in (
        (f"created={day}", True),
        (f"created=ge{day}&created=le{day}", True),
        (f"created=gt{day}", False),
        (f"created=lt{day}", False),
        (f"created=lt{day}T23:59:59Z", True),
        ("status=active", True),
        ("status=cancelled", False),
    ):
        assert bool(await found(world, f"{patient}&{query}")) is hit, query
    assert await found(world, f"Task?patient={uid('patient', 'tom')}&status=in-progress&authored-on={day}") == {tom}


async def test_pages_follow_one_another_until_all_were_shown() -> None:
    world, ids = await three()
    url, seen = f"/fhir/ClaimResponse?insurer={PAYER_ID}&_count=2", []
    while True:
        bundle = (await get(world, url)).json()
        seen += [entry["resource"]["id"] for entry in bundle["entry"]]
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        assert dict(parse_qsl(urlsplit(links["self"]).query)) == dict(parse_qsl(urlsplit(url).query))
        if "next" not in links:
            break
        url = "/fhir" + links["next"].partition("/fhir")[2]
    assert seen == sorted(ids)


async def pages(world: World, query: str) -> list[list[str]]:
    """The ids on each page of a search, as its links lead on."""
    url, found = f"/fhir/{query}", []
    while True:
        bundle = (await get(world, url)).json()
        found.append([entry["resource"]["id"] for entry in bundle.get("entry", [])])
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        if "next" not in links:
            return found
        url = "/fhir" + links["next"].partition("/fhir")[2]


@pytest.mark.parametrize("looked_at", [2000, 1])
async def test_a_page_is_full_where_there_is_more_however_few_fit(
    looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of nine, four are called off; where too few are looked at for a full page, none is lost all the same."""
    monkeypatch.setattr("services.prior_authorization.listing.LOOKED_AT", looked_at)
    world = World()
    ids = []
    for number in range(9):
        await world.know(f"patient-{number}", None)
        ids.append(await world.refer(f"patient-{number}"))
    await world.until(1)
    gone = sorted(ids)[2::2]
    async with world.harness.client(Role.COORDINATOR) as client:
        for id in gone:
            called_off = await client.post(
                f"/authorizations/{id}/cancel", json={"reason": "test"}, headers=world.harness.key()
            )
            assert called_off.status_code == 200, called_off.text
    found = await pages(world, f"Claim?insurer={PAYER_ID}&status=cancelled&_count=2")
    assert [id for page in found for id in page] == gone
    if looked_at > len(ids):
        assert [len(page) for page in found] == [2, 2]
    assert [len(page) for page in await pages(world, f"Claim?insurer={PAYER_ID}&_count=3")] == [3, 3, 3]


async def test_a_search_by_when_it_last_changed_finds_what_changed_since() -> None:
    world, (tess, tom, _) = await three()
    changed = {id: (await world.harness.stored(Authorization, id)) for id in (tess, tom)}
    read = (await get(world, f"/fhir/Task/{tess}")).json()
    document = changed[tess]
    assert document is not None
    assert document.changed_at is not None
    assert read["meta"]["lastUpdated"] == document.changed_at.strftime("%Y-%m-%dT%H:%M:%S.") + (
        f"{document.changed_at.microsecond // 1000:03d}Z"
    )
    world.harness.clock.pass_(3600)
    since = world.harness.clock.now()
    async with world.harness.client(Role.COORDINATOR) as client:
        await client.post(f"/authorizations/{tom}/cancel", json={"reason": "test"}, headers=world.harness.key())
    day = f"insurer={PAYER_ID}&_lastUpdated"
    stamp = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    for kind in KINDS:
        asked = f"patient={uid('patient', 'tom')}&_lastUpdated" if kind == "Task" else day
        assert await found(world, f"{kind}?{asked}=ge{stamp}") == {tom}
    assert tom not in await found(world, f"Claim?{day}=lt{stamp}")
    assert tess in await found(world, f"Claim?{day}=lt{stamp}&_lastUpdated=ge{world.start:%Y-%m-%d}")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "required"),
        ("status=active", "required"),
        ("patient=x&_lastUpdated=ge2026-01-01", "value"),
        (f"patient={PATIENT}&disposition=secret", "not-supported"),
        (f"patient={PATIENT}&_lastUpdated=yesterday", "value"),
        ("_lastUpdated=ge2026-01-01", "required"),
        (f"patient={PATIENT}&_count=0", "value"),
        (f"patient={PATIENT}&_count=1000", "value"),
        (f"patient={PATIENT}&created=yesterday", "value"),
        (f"patient={PATIENT}&created=2026-02-30", "value"),
        (f"patient={PATIENT}&created=9999-12-31", "value"),
        (f"patient={PATIENT}&_after=secret", "value"),
        (f"patient=Practitioner/{PATIENT}", "value"),
        (f"patient={PATIENT}&patient={PATIENT}", "invalid"),
        ("patient=secret", "value"),
        ("insurer=urn:other|acme-health", "value"),
        ("identifier=secret secret", "value"),
        ("request=Patient/" + PATIENT, "value"),
    ],
)
async def test_what_is_not_known_or_not_fitting_is_refused_with_an_outcome_that_repeats_nothing(
    query: str, code: str
) -> None:
    answer = await get(World(), f"/fhir/ClaimResponse?{query}")
    assert answer.status_code == 400
    parse(answer.json(), "OperationOutcome")
    assert answer.json()["issue"][0]["code"] == code
    assert "secret" not in answer.text


async def test_whoever_reads_of_a_patient_is_on_record() -> None:
    world, (tess, *_) = await three()
    await get(world, f"/fhir/Claim?patient={uid('patient', 'tess')}")
    await get(world, f"/fhir/Task/{tess}")
    audited = [entry for entry in await world.harness.store.find("audit", {}) if entry.get("action") == "read"]
    assert [entry["ids"] for entry in audited[-2:]] == [[tess], [tess]]


@pytest.mark.parametrize("path", ["/fhir/Claim?patient=x", "/fhir/Task?patient=x", f"/fhir/Claim/{PATIENT}"])
async def test_nobody_reads_without_a_role(path: str) -> None:
    world = World()
    await world.settle()
    async with world.harness.client() as client:
        assert (await client.get(path)).status_code in (401, 403)
