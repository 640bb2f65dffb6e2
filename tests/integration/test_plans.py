"""What is asked often goes by an index on a real store: prior authorization's listings, whether anything is parked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import uuid4

import pytest

from services.prior_authorization.listing import LOOKS
from services.prior_authorization.model import Authorization
from shared.kit.document import SLOTS
from shared.kit.parking import Parked, waiting_in
from shared.kit.store.mongodb import MongoStore
from shared.kit.store.port import EPOCH, Conditions, Outcome
from shared.kit.store.repository import indexes_of
from shared.kit.testing.store_suite import AT, fresh
from tests.integration.test_store import stages

YEAR = AT + timedelta(days=366)
SOON = {"breaches_at": {"$gte": EPOCH, "$lte": YEAR}}

LISTINGS: Mapping[str, tuple[Conditions, str]] = {
    "what breaches first": (SOON, "breaches_at"),
    "what breaches first of one payer": ({"payer_id": "payer-3", **SOON}, "breaches_at"),
    "how a payer decided": ({"payer_id": "payer-4", "breaches_at": None}, "_id"),
    "a worklist": ({"state": "pended", "_id": {"$gt": "0100"}}, "_id"),
    "a worklist of one payer": ({"state": "pended", "payer_id": "payer-3"}, "_id"),
    "a FHIR search of a patient": ({"patient_id": "patient-7"}, "_id"),
    "a FHIR search of a payer": ({"payer_id": "payer-3", "_id": {"$gt": "0100"}}, "_id"),
    "a claim by its identifier": ({"claim_id": "claim-17"}, "_id"),
    "any claim that was ever sent": ({"claim_ids": "older-17"}, "_id"),
}


def test_whatever_is_asked_for_a_page_is_found_by_one_index() -> None:
    indexed = {index.fields for index in indexes_of(Authorization)}
    assert {(*look, "_id") for look in LOOKS if look != ("_id",)} <= indexed


@pytest.fixture(scope="module")
def planned() -> str:
    return f"plans-{uuid4().hex}"


@pytest.mark.parametrize("listing", list(LISTINGS))
async def test_every_listing_of_authorizations_goes_by_an_index(mongodb_uri: str, planned: str, listing: str) -> None:
    store = MongoStore(mongodb_uri, planned)
    if not await store.count(Authorization.collection, {}):
        await store.ensure(Authorization.collection, indexes_of(Authorization))
        writes = [
            fresh(
                f"{n:04d}",
                slot=n % SLOTS,
                state="pended" if n % 4 else "approved",
                payer_id=f"payer-{n % 20}",
                patient_id=f"patient-{n % 200}",
                claim_id=f"claim-{n}",
                claim_ids=[f"older-{n}", f"claim-{n}"],
                breaches_at=AT + timedelta(hours=n) if n % 4 else None,
            )
            for n in range(1000)
        ]
        assert set(await store.write(Authorization.collection, writes)) == {Outcome.WON}
    conditions, sort = LISTINGS[listing]

    plan = await store.plan(Authorization.collection, conditions, sort=sort, limit=200)

    assert "COLLSCAN" not in set(stages(plan)), plan
    assert {"IXSCAN", "IDHACK", "EXPRESS_IXSCAN"} & set(stages(plan)), plan
    found = await store.find(Authorization.collection, conditions, sort=sort, limit=200)
    keys = [(raw[sort], raw["_id"]) for raw in found]
    assert keys, "a listing that finds nothing shows nothing"
    assert keys == sorted(keys)
    await store.close()


async def test_whether_anything_waits_in_a_group_goes_by_an_index(mongodb_uri: str) -> None:
    store = MongoStore(mongodb_uri, f"plans-{uuid4().hex}")
    await store.ensure(Parked.collection, indexes_of(Parked))
    groups = {"toy.box": "clear", "timer:box:open": "parked"}
    writes = [fresh(f"{group}-{n}", group=group, state=state) for group, state in groups.items() for n in range(300)]
    assert set(await store.write(Parked.collection, writes)) == {Outcome.WON}

    plan = await store.plan(Parked.collection, waiting_in("toy.box"), sort="_id", limit=1)

    assert "COLLSCAN" not in set(stages(plan)), plan
    assert {"group", "state"} <= set(str(plan)[str(plan).index("keyPattern") :].replace("'", " ").split()), plan
    await store.close()
