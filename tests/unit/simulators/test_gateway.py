"""The gateway takes messages on four doors, says what became of them, forwards replies, and its ledger knows it all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import httpx
import pytest
from aiosmtpd.smtp import SMTP

from deploy.simulators.gateway import Gateway
from shared.kit.clock import FrozenClock
from tests.unit.simulators.world import Json, Listener, client, frozen

PHONE = "+15005550123"
CALLBACK = "http://notifications.test/callbacks/42"
PDF = b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"


def sms(to: str = PHONE, **changes: object) -> Json:
    message = {"to": to, "from": "+18005550199", "body": "See you at 9", "reference": "d-1", "callback_url": CALLBACK}
    return {**message, **changes}


@dataclass
class World:
    """A gateway in process, its clock, and whom it calls back."""

    clock: FrozenClock
    listener: Listener
    gateway: Gateway
    http: httpx.AsyncClient
    slept: list[float] = field(default_factory=list)

    async def send(self, message: Json, key: str = "k-1", door: str = "/sms") -> httpx.Response:
        return await self.http.post(door, json=message, headers={"Idempotency-Key": key})

    async def letter(self, pdf: bytes = PDF, key: str = "k-1", **headers: str) -> httpx.Response:
        sent = {"Content-Type": "application/pdf", "Idempotency-Key": key, "X-Reference": "d-1"}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post("/letters", content=pdf, headers={**sent, **given})

    async def run(self) -> None:
        """Let time come to all that is due."""
        while (due := self.gateway.next_due()) is not None:
            self.clock.advance_to(due)
            await self.gateway.tick()

    async def ledger(self) -> Json:
        found: Json = (await self.http.get("/ledger")).json()
        return found


@asynccontextmanager
async def made(*, deduplicate: bool = True, data: Path | None = None) -> AsyncIterator[World]:
    clock, listener, slept = frozen(), Listener(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    gateway = Gateway(
        now=clock.now,
        http=listener.http,
        inbound_url="http://notifications.test/inbound/{channel}",
        token=lambda: "a-token",
        deduplicate=deduplicate,
        sleep=sleep,
        data=data,
    )
    async with client(gateway.app) as http:
        yield World(clock, listener, gateway, http, slept)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with made(data=tmp_path) as world:
        yield world


# -- SMS and voice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("door", "seconds"), [("/sms", 2), ("/voice", 30)])
async def test_a_message_is_accepted_and_its_delivery_reported_when_it_is_due(
    world: World, door: str, seconds: int
) -> None:
    accepted = await world.send(sms(), door=door)
    assert accepted.status_code == 202
    world.clock.advance(timedelta(seconds=seconds, milliseconds=-1))
    await world.gateway.tick()
    assert world.listener.got == []
    assert (await world.ledger())["messages"][0]["status"] == "accepted"
    world.clock.advance(timedelta(milliseconds=1))
    await world.gateway.tick()
    report = {"id": accepted.json()["id"], "reference": "d-1", "status": "delivered", "code": None}
    assert world.listener.got == [("callbacks/42", "Bearer a-token", report)]
    (message,) = (await world.ledger())["messages"]
    assert (message["status"], message["channel"], message["from"]) == ("delivered", door[1:], "+18005550199")
    assert world.gateway.next_due() is None


async def test_a_report_is_sent_again_until_it_is_taken(world: World) -> None:
    world.listener.statuses = [500, 503]
    await world.send(sms())
    await world.run()
    (message,) = (await world.ledger())["messages"]
    assert [callback["status"] for callback in message["callbacks"]] == [500, 503, 202]
    assert len(set(world.listener.keys)) == 1


async def test_a_message_without_a_callback_is_delivered_and_told_to_nobody(world: World) -> None:
    message = sms()
    del message["callback_url"]
    await world.send(message)
    await world.run()
    assert world.listener.got == []
    assert (await world.ledger())["messages"][0]["status"] == "delivered"


async def test_a_known_key_is_answered_as_before_and_sends_nothing(world: World) -> None:
    first = await world.send(sms())
    again = await world.send(sms())
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    ledger = await world.ledger()
    assert ledger["keys"] == {"k-1": 1}
    assert len(ledger["messages"][0]["repeats"]) == 1


async def test_a_known_key_with_another_message_is_refused(world: World) -> None:
    await world.send(sms())
    refused = await world.send(sms(body="Something else"))
    assert (refused.status_code, refused.json()) == (422, {"code": "idempotency-key-reused"})
    assert (await world.ledger())["keys"] == {"k-1": 1}


async def test_a_gateway_that_cannot_deduplicate_sends_the_same_key_twice_and_the_ledger_shows_it() -> None:
    async with made(deduplicate=False) as world:
        first, second = await world.send(sms()), await world.send(sms())
        assert first.json() != second.json()
        ledger = await world.ledger()
        assert ledger["keys"] == {"k-1": 2}
        assert ledger["references"] == {"d-1": 2}


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"to": PHONE, "from": "+18005550199", "reference": "d-1"}, "body"),
        (sms(body=""), "body"),
        (sms(body="x" * 1601), "body"),
        (sms(reference=7), "reference"),
        (sms(language="!"), "language"),
        (sms(callback_url="somewhere"), "callback_url"),
    ],
)
async def test_a_message_that_cannot_be_sent_is_400_and_names_the_field(world: World, message: Json, path: str) -> None:
    refused = await world.send(message)
    assert refused.status_code == 400
    assert refused.json()["code"] == "invalid-request"
    assert [flaw["path"] for flaw in refused.json()["flaws"]] == [path]
    assert (await world.ledger())["messages"] == []


@pytest.mark.parametrize("to", ["5005550123", "+0123456789", "+1500555012a", "+15005551123", ""])
async def test_a_number_that_never_will_work_is_400(world: World, to: str) -> None:
    refused = await world.send(sms(to))
    assert (refused.status_code, refused.json()) == (400, {"code": "invalid-number"})


async def test_a_message_without_a_key_is_refused_and_so_is_one_that_is_no_json_or_too_large(world: World) -> None:
    assert (await world.http.post("/sms", json=sms())).json() == {"code": "missing-idempotency-key"}
    assert (await world.http.post("/sms", content=b"{")).status_code == 400
    assert (await world.http.post("/sms", content=b" " * (64 * 1024 + 1))).status_code == 413
    assert [refused["status"] for refused in (await world.ledger())["refused"]] == [400, 400, 413]


# -- fates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digit", "statuses", "status", "code"),
    [
        ("0", [202], "delivered", None),
        ("2", [202], "undelivered", "unreachable"),
        ("3", [202], "failed", "carrier-rejected"),
        ("4", [429, 429, 202], "delivered", None),
        ("5", [500, 500, 202], "delivered", None),
        ("6", [500, 202], "delivered", None),
        ("7", [202], "delivered", None),
    ],
)
async def test_a_sandbox_number_meets_the_fate_that_it_names_and_is_accepted_once(
    world: World, digit: str, statuses: list[int], status: str, code: str | None
) -> None:
    message = sms(f"+1500555{digit}001")
    assert [(await world.send(message)).status_code for _ in statuses] == statuses
    await world.run()
    assert [(body["status"], body["code"]) for _, _, body in world.listener.got] == [(status, code)]
    assert (await world.ledger())["keys"] == {"k-1": 1}


async def test_a_busy_gateway_says_when_to_come_back(world: World) -> None:
    assert (await world.send(sms("+15005554001"))).headers["Retry-After"] == "2"


async def test_a_message_whose_answer_was_lost_is_still_delivered_and_reported(world: World) -> None:
    assert (await world.send(sms("+15005556001"))).status_code == 500
    await world.run()
    assert [body["status"] for _, _, body in world.listener.got] == ["delivered"]


async def test_without_deduplication_a_lost_answer_that_is_asked_again_sends_twice() -> None:
    async with made(deduplicate=False) as world:
        assert (await world.send(sms("+15005556001"))).status_code == 500
        assert (await world.send(sms("+15005556001"))).status_code == 202
        assert (await world.ledger())["keys"] == {"k-1": 2}


async def test_a_slow_answer_comes_after_the_message_was_taken(world: World) -> None:
    assert (await world.send(sms("+15005557001"))).status_code == 202
    assert world.slept == [20.0]


async def test_a_silent_number_is_accepted_and_never_reported(world: World) -> None:
    await world.send(sms("+15005558001"))
    assert world.gateway.next_due() is None
    assert (await world.ledger())["messages"][0]["status"] == "accepted"


async def test_a_script_strikes_as_often_as_it_says_in_the_order_in_which_it_came(world: World) -> None:
    for order in (
        {"to": PHONE, "fate": "busy", "count": 1, "retry_after": 9},
        {"to": None, "fate": "error", "count": 2, "channel": "sms"},
    ):
        assert (await world.http.post("/control/script", json=order)).status_code == 204
    busy = await world.send(sms())
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "9")
    other = await world.send(sms("+15005550124"), key="k-2")
    assert [other.status_code, (await world.send(sms())).status_code] == [500, 500]
    assert (await world.send(sms())).status_code == 202


async def test_a_script_for_another_channel_does_not_strike(world: World) -> None:
    await world.http.post("/control/script", json={"fate": "error", "channel": "voice"})
    assert (await world.send(sms())).status_code == 202
    assert (await world.send(sms(), key="k-2", door="/voice")).status_code == 500


async def test_a_script_that_means_nothing_is_refused(world: World) -> None:
    refused = await world.http.post("/control/script", json={"fate": "explode"})
    assert refused.status_code == 400
    assert refused.json()["flaws"][0]["path"] == "fate"


# -- replies --------------------------------------------------------------------------------------------------------


async def test_a_reply_is_forwarded_to_the_number_that_wrote_last(world: World) -> None:
    await world.send(sms())
    answer = await world.http.post("/control/reply", json={"from": PHONE, "body": "CANCEL"})
    assert answer.status_code == 202
    await world.gateway.tick()
    assert world.listener.got == [
        (
            "inbound/sms",
            "Bearer a-token",
            {
                "id": answer.json()["id"],
                "from": PHONE,
                "to": "+18005550199",
                "body": "CANCEL",
                "received_at": "2026-03-02T15:00:00.000Z",
            },
        )
    ]
    assert (await world.ledger())["replies"][0]["accepted"]


async def test_a_reply_may_come_twice_with_one_id_and_is_sent_again_until_taken(world: World) -> None:
    world.listener.statuses = [500]
    await world.http.post("/control/reply", json={"from": PHONE, "body": "STOP", "copies": 2, "to": "+18005550100"})
    await world.run()
    assert len(world.listener.got) == 3
    assert len({body["id"] for _, _, body in world.listener.got}) == 1
    assert len(set(world.listener.keys)) == 2


# -- letters --------------------------------------------------------------------------------------------------------


async def test_a_letter_is_kept_as_a_file_and_delivered_after_two_days(world: World, tmp_path: Path) -> None:
    accepted = await world.letter(X_Callback_Url=CALLBACK)
    assert accepted.status_code == 202
    kept = tmp_path / "letters" / f"{accepted.json()['id']}.pdf"
    assert kept.read_bytes() == PDF
    assert world.gateway.next_due() == world.clock.now() + timedelta(hours=48)
    await world.run()
    assert [body["status"] for _, _, body in world.listener.got] == ["delivered"]


async def test_a_letter_is_taken_once_under_its_key(world: World, tmp_path: Path) -> None:
    first, again = await world.letter(), await world.letter()
    assert first.json() == again.json()
    assert len(list((tmp_path / "letters").iterdir())) == 1
    assert (await world.letter(PDF.replace(b"1.7", b"1.4"))).status_code == 422


async def test_a_letter_whose_answer_is_lost_is_kept_all_the_same(world: World, tmp_path: Path) -> None:
    await world.http.post("/control/script", json={"to": "d-1", "fate": "lost"})
    assert (await world.letter()).status_code == 500
    assert len(list((tmp_path / "letters").iterdir())) == 1


async def test_what_is_no_letter_is_refused(world: World) -> None:
    assert (await world.letter(b"Dear madam")).json() == {"code": "invalid-pdf"}
    assert (await world.letter(b"%PDF-1.7 cut of")).json() == {"code": "invalid-pdf"}
    assert (await world.letter(Content_Type="text/plain")).status_code == 415
    assert (await world.letter(X_Reference="")).status_code == 400
    assert (await world.letter(PDF + b" " * 5 * 1024 * 1024)).status_code == 413
    assert (await world.ledger())["messages"] == []


# -- e-mail, over a real SMTP connection ----------------------------------------------------------------------------


def mail(
    to: str = "pat@example.test", key: str | None = "<d-1@carerelay.test>", body: str = "Nos vemos a las 9"
) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "clinic@example.test", to, "Su cita mañana"
    message["X-Reference"] = "d-1"
    if key is not None:
        message["Message-ID"] = key
    message.set_content(body)
    message["Content-Language"] = "es"  # after the content, whose setting takes all Content headers away
    return message


@asynccontextmanager
async def mailbox(gateway: Gateway) -> AsyncIterator[aiosmtplib.SMTP]:
    """A connection to the gateway's SMTP door on a free port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(gateway.mail, enable_SMTPUTF8=True), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as connection:
        yield connection


@contextmanager
def refusal(code: int) -> Iterator[None]:
    """The SMTP reply code of a command that fails."""
    with pytest.raises(aiosmtplib.SMTPException) as caught:
        yield
    found = caught.value
    if isinstance(found, aiosmtplib.SMTPRecipientsRefused):
        found = found.recipients[0]
    assert isinstance(found, aiosmtplib.SMTPResponseException)
    assert found.code == code


async def test_a_mail_stands_in_the_ledger_under_its_message_id(world: World) -> None:
    async with mailbox(world.gateway) as connection:
        await connection.send_message(mail())
    (message,) = (await world.ledger())["messages"]
    assert {name: message[name] for name in ("channel", "to", "from", "subject", "body", "reference", "language")} == {
        "channel": "email",
        "to": "pat@example.test",
        "from": "clinic@example.test",
        "subject": "Su cita mañana",
        "body": "Nos vemos a las 9",
        "reference": "d-1",
        "language": "es",
    }
    assert (message["key"], message["status"]) == ("<d-1@carerelay.test>", "delivered")


async def test_a_known_message_id_is_taken_and_counted_as_a_repeat(world: World) -> None:
    async with mailbox(world.gateway) as connection:
        for _ in range(3):
            await connection.send_message(mail())
        with refusal(550):
            await connection.send_message(mail(body="Something else"))
    (message,) = (await world.ledger())["messages"]
    assert len(message["repeats"]) == 2


async def test_a_mail_server_that_cannot_deduplicate_takes_a_message_id_twice() -> None:
    async with made(deduplicate=False) as world, mailbox(world.gateway) as connection:
        await connection.send_message(mail())
        await connection.send_message(mail())
        assert (await world.ledger())["keys"] == {"<d-1@carerelay.test>": 2}


async def test_a_mail_without_a_message_id_is_refused(world: World) -> None:
    # aiosmtplib would add one of its own to a message that it is given as an object.
    raw = mail(key=None).as_bytes()
    async with mailbox(world.gateway) as connection:
        with refusal(550):
            await connection.sendmail("clinic@example.test", ["pat@example.test"], raw)
    assert (await world.ledger())["messages"] == []


async def test_a_mailbox_that_is_not_there_is_refused_for_good(world: World) -> None:
    async with mailbox(world.gateway) as connection:
        with refusal(550):
            await connection.send_message(mail("invalid.pat@example.test"))


@pytest.mark.parametrize(("word", "refusals"), [("busy", 2), ("error", 2)])
async def test_a_mail_is_refused_for_now_and_then_taken_once(world: World, word: str, refusals: int) -> None:
    async with mailbox(world.gateway) as connection:
        for _ in range(refusals):
            with refusal(451):
                await connection.send_message(mail(f"{word}.pat@example.test"))
        await connection.send_message(mail(f"{word}.pat@example.test"))
    assert (await world.ledger())["keys"] == {"<d-1@carerelay.test>": 1}


async def test_a_mail_whose_reply_is_lost_was_taken_and_its_repeat_is_known(world: World) -> None:
    lost = mail("lost.pat@example.test")
    async with mailbox(world.gateway) as connection:
        with pytest.raises(aiosmtplib.SMTPServerDisconnected):
            await connection.send_message(lost)
        assert (await world.ledger())["keys"] == {"<d-1@carerelay.test>": 1}
        await connection.connect()
        await connection.send_message(lost)
    (message,) = (await world.ledger())["messages"]
    assert len(message["repeats"]) == 1


# -- the copy on disk -----------------------------------------------------------------------------------------------


async def test_the_journal_holds_each_fact_in_the_order_in_which_it_came(world: World, tmp_path: Path) -> None:
    await world.send(sms())
    await world.send(sms())
    await world.send(sms("nobody"), key="k-2")
    await world.run()
    await world.http.post("/control/reply", json={"from": PHONE, "body": "C"})
    await world.run()
    lines = (tmp_path / "gateway.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line)["what"] for line in lines]
    assert told == ["message", "repeat", "refused", "status", "callback", "reply", "reply-sent"]
