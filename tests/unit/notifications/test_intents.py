"""What replies ask for, in the words that people use."""

from __future__ import annotations

import pytest

from services.notifications.model.intents import CANCEL_WORDS, CONFIRM_WORDS, HELP_WORDS, STOP_WORDS, read
from shared.contracts.intake import Channel
from shared.contracts.notifications import ReplyIntent

STOP, CANCEL, CONFIRM = ReplyIntent.STOP, ReplyIntent.CANCEL, ReplyIntent.CONFIRM
HELP, OTHER = ReplyIntent.HELP, ReplyIntent.OTHER

SAID = {
    STOP: [
        *("stop", "STOP", "Stop.", " stop!! ", "quit", "END", "revoke", "Opt out", "opt-out", "OPTOUT", "unsubscribe"),
        *("STOPALL", "please stop", "stop it please", "Stop texting me", "stop sending me these messages right now"),
        *("do not text me again", "Don't call this number any more", "take me off your list"),
        "please remove my number from this",
        *("I want to opt out of these texts please", "I revoke my consent", "ALTO", "alto!", "parar", "BAJA", "No más"),
        *("no me manden más mensajes por favor", "dejen de enviarme mensajes", "quiero darme de baja de esto"),
        *("🛑 STOP 🛑", "cancel all"),
    ],
    CANCEL: [
        *("X", "x", "2", "NO", "no.", "cancelar", "CANCELAR", "Cancel my appointment", "cancel visit"),
        *("cancelar mi cita", "Please cancel my visit!"),
    ],
    CONFIRM: ["C", "c", "C.", "confirm", "Confirmed", "YES", "yes!", "Y", "si", "SÍ", "Sí.", "1", "confirmar"],
    HELP: ["HELP", "help?", "info", "ayuda", "Información"],
    OTHER: [
        *("", "   ", "👍", "ok", "can I come at 3 instead?", "yes but can we move it to Friday", "I'll stop by"),
        *("no idea", "my endoscopy is when?", "the weekend", "Is there a bus stop near the clinic entrance?"),
        *("alta o baja presión?", "I cannot confirm yet", "que hora es mi cita", "123", "12", "stop at the desk?"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("text", "intent"), [(text, intent) for intent, texts in SAID.items() for text in texts])
def test_a_reply_asks_for_what_its_words_say(text: str, intent: ReplyIntent) -> None:
    assert read(text) == (intent,)


@pytest.mark.parametrize("word", ["stop", "quit", "end", "revoke", "opt out", "cancel", "unsubscribe"])
def test_each_word_of_the_rule_revokes_whatever_else_it_may_mean(word: str) -> None:
    for form in (word, word.upper(), word.title(), f" {word}. ", f"{word}!"):
        assert read(form)[0] is STOP


def test_a_bare_cancel_stops_messages_cancels_no_visit_and_is_read_by_a_person() -> None:
    assert read("Cancel") == (STOP, OTHER)


def test_no_word_asks_for_two_things() -> None:
    vocabularies = [STOP_WORDS, CANCEL_WORDS, CONFIRM_WORDS, HELP_WORDS]
    assert len(frozenset().union(*vocabularies)) == sum(len(words) for words in vocabularies)


def test_keys_pressed_in_a_call_mean_what_the_call_says() -> None:
    assert [read(key, Channel.VOICE) for key in "129"] == [(CONFIRM,), (CANCEL,), (STOP,)]
    assert read("9", Channel.SMS) == (OTHER,)
