"""Wordings: complete in both languages, within an SMS at their longest, and saying no more than they should."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.notifications.letters import Unprintable, address_lines, letter, printable
from services.notifications.model.language import Language, language_of
from services.notifications.templates import (
    CLINIC_SEPTETS,
    PHONE_SEPTETS,
    SMS_SEPTETS,
    TEMPLATES,
    Occasion,
    Sender,
    septets,
    to_gsm7,
    word,
)
from shared.contracts.intake import Channel
from tests.unit.notifications.cases import NOW, person

SENDER = Sender("Test Clinic", "555-010-0100")
LONGEST = Sender("W" * CLINIC_SEPTETS, "8" * PHONE_SEPTETS)
ANSWERS = {Occasion.STOPPED, Occasion.HELP}
HOURS_OF_TWO_YEARS = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=13 * n) for n in range(1400)]
TEXTS = sorted(key for key in TEMPLATES if key[2] is Channel.SMS)


def test_every_wording_exists_in_every_language_for_every_channel_it_can_go_by() -> None:
    for language in Language:
        for occasion in Occasion:
            for channel in Channel:
                wanted = channel is Channel.SMS or occasion not in ANSWERS
                assert ((language, occasion, channel) in TEMPLATES) is wanted


def test_languages_say_the_same_things() -> None:
    for (_, occasion, channel), template in TEMPLATES.items():
        same = [TEMPLATES[language, occasion, channel].placeholders() for language in Language]
        assert len(set(same)) == 1
        assert {"clinic", "phone"} <= template.placeholders()
        assert ("when" in template.placeholders()) is (occasion not in ANSWERS)


@pytest.mark.parametrize(("language", "occasion", "channel"), TEXTS)
def test_a_text_fits_one_sms_at_its_longest(language: Language, occasion: Occasion, channel: Channel) -> None:
    for zone in ("America/New_York", "Pacific/Honolulu"):
        for start in HOURS_OF_TWO_YEARS:
            text = word(language, occasion, channel, LONGEST, start, zone).body
            assert septets(text) <= SMS_SEPTETS, text


@pytest.mark.parametrize(("language", "occasion", "channel"), TEXTS)
def test_a_text_names_its_sender_and_tells_how_to_stop(
    language: Language, occasion: Occasion, channel: Channel
) -> None:
    text = word(language, occasion, channel, SENDER, NOW, "America/New_York").body
    assert text.startswith(SENDER.clinic)
    assert SENDER.phone in text
    if occasion is not Occasion.STOPPED:
        assert ("STOP" if language is Language.ENGLISH else "ALTO") in text


def test_a_call_begins_with_who_calls_and_tells_how_to_stop() -> None:
    for (language, occasion, channel), _ in TEMPLATES.items():
        if channel is Channel.VOICE:
            text = word(language, occasion, channel, SENDER, NOW, "America/New_York").body
            assert text.index(SENDER.clinic) < 20
            assert text.index(SENDER.phone) < 40
            assert "9" in text


@pytest.mark.parametrize(
    ("language", "channel", "said"),
    [
        (Language.ENGLISH, Channel.SMS, "Wed Nov 25, 1:05 PM"),
        (Language.SPANISH, Channel.SMS, "mié 25 nov, 1:05 p.m."),
        (Language.ENGLISH, Channel.EMAIL, "Wednesday, November 25, 2026 at 1:05 PM"),
        (Language.SPANISH, Channel.VOICE, "miércoles 25 de noviembre de 2026 a la 1:05 p. m."),
    ],
)
def test_dates_are_told_in_words_where_the_visit_is(language: Language, channel: Channel, said: str) -> None:
    start = datetime(2026, 11, 25, 18, 5, tzinfo=UTC)
    wording = word(language, Occasion.REMINDER, channel, SENDER, start, "America/New_York", "Asia/Kolkata")
    assert (to_gsm7(said) if channel is Channel.SMS else said) in wording.body


@pytest.mark.parametrize(
    ("hour", "said"), [(0, "12:00 AM"), (11, "11:00 AM"), (12, "12:00 PM"), (13, "1:00 PM"), (23, "11:00 PM")]
)
def test_midnight_and_noon_are_told_right(hour: int, said: str) -> None:
    start = datetime(2026, 6, 1, hour, tzinfo=UTC)
    assert said in word(Language.ENGLISH, Occasion.BOOKED, Channel.SMS, SENDER, start).body


def test_a_language_without_wordings_falls_back_to_english_and_says_so() -> None:
    assert language_of("es-MX") == (Language.SPANISH, False)
    assert language_of("EN") == (Language.ENGLISH, False)
    assert language_of("vi") == (Language.ENGLISH, True)
    assert language_of("") == (Language.ENGLISH, True)


def test_what_gsm7_lacks_loses_its_accent_and_what_it_has_stays() -> None:
    assert to_gsm7("sábado mañana ¿él? l’été “€”") == 'sabado mañana ¿él? l\'été "€"'
    assert to_gsm7("日 本") == "? ?"
    assert septets("a€") == 3


def test_a_letter_is_a_pdf_and_the_same_one_every_time() -> None:
    wording = word(Language.SPANISH, Occasion.BOOKED, Channel.LETTER, SENDER, NOW, "America/New_York")
    first = letter(person(), wording, SENDER, "es", NOW)
    assert first.startswith(b"%PDF-")
    assert letter(person(), wording, SENDER, "es", NOW) == first
    assert address_lines(person()) == ["Zoé Núñez", "1 Test Way", "Testville, NY 10001"]


def test_a_name_keeps_what_the_font_has_and_loses_only_marks_that_it_lacks() -> None:
    assert printable("Zoé Núñez") == "Zoé Núñez"
    assert printable("Nguyễn Đức · Łukasz Żak") == "Nguyen Duc · Lukasz Zak"
    assert printable("Zoe\u0301") == "Zoé"
    with pytest.raises(Unprintable):
        printable("王小明")
