"""Items keep their numbers; a document of the shape before items is read as one of them."""

from __future__ import annotations

from services.prior_authorization.model import Authorization, Item, ServiceKind
from services.prior_authorization.model.items import next_sequence
from tests.unit.prior_authorization.cases import CONSULT, OFFICE_VISIT, opened, sent


def test_a_referral_asks_for_one_item() -> None:
    document = opened()
    assert [(item.sequence, item.service, item.kind, item.quantity) for item in document.items] == [
        (1, CONSULT, ServiceKind.REFERRAL, 4)
    ]
    assert (document.service, document.quantity, frozenset(item.sequence for item in document.items)) == (
        CONSULT,
        4,
        {1},
    )


def test_a_document_stored_before_there_were_items_is_read_with_one() -> None:
    stored = sent().model_dump(exclude={"items", "shape"})
    old = {**stored, "shape": 1, "service": CONSULT.model_dump(), "quantity": 3}
    document = Authorization.model_validate(old)
    assert (document.shape, document.service, document.quantity, len(document.items)) == (2, CONSULT, 3, 1)
    assert Authorization.model_validate(document.model_dump()) == document


def test_what_an_older_release_left_beside_the_items_is_not_believed() -> None:
    stored = {**sent().model_dump(), "service": OFFICE_VISIT.model_dump(), "quantity": 9}
    assert Authorization.model_validate(stored).quantity == 4


def test_the_number_of_a_dropped_item_is_not_given_again() -> None:
    items = [Item(sequence=1, service=CONSULT), Item(sequence=2, service=CONSULT, dropped=True)]
    assert next_sequence(items) == 3
    assert next_sequence([]) == 1
