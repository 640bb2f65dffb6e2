"""What a person's reply asks for: English and Spanish, a key pressed or a few words; a wish to stop comes first.

47 CFR 64.1200(a)(10): "stop", "quit", "end", "revoke", "opt out", "cancel" and "unsubscribe" sent in reply to a text
revoke definitively; so does any other reasonable way of saying it. Why a bare CANCEL is a wish to stop and a question
for a person, and never cancels a visit by itself, is told in the service's README.
"""

from __future__ import annotations

import re
import unicodedata

from shared.contracts.intake import Channel
from shared.contracts.notifications import ReplyIntent

# fmt: off
STOP_WORDS = frozenset({
    "stop", "quit", "end", "revoke", "opt out", "cancel", "unsubscribe",  # the rule's own
    "optout", "stopall", "stop all", "cancel all", "stop texts", "end texts", "no more texts",
    "alto", "parar", "pare", "baja", "darme de baja", "no mas",
})
CANCEL_WORDS = frozenset({
    "x", "2", "no", "cancel visit", "cancel appointment", "cancel my visit", "cancel my appointment",
    "cancel the visit", "cancel the appointment", "please cancel my visit", "please cancel my appointment",
    "cancelar", "cancelo", "cancelar cita", "cancelar mi cita", "cancelar la cita", "cancelar visita",
    "cancele mi cita",
})
CONFIRM_WORDS = frozenset({
    "c", "1", "yes", "y", "si", "confirm", "confirmed", "confirmar", "confirmo", "confirmado", "confirmada",
})
HELP_WORDS = frozenset({"help", "info", "ayuda", "informacion"})
# fmt: on

KEYS = {"1": ReplyIntent.CONFIRM, "2": ReplyIntent.CANCEL, "9": ReplyIntent.STOP}
"""What a key pressed during a voice call means; the call says so."""

_STOP_PHRASE = re.compile(
    r"\b(unsubscribe|opt(ing)? out|optout"
    r"|(stop|quit) (text|messag|call|send|contact|sms)\w*"
    r"|(do not|dont|never) (text|message|call|contact)\w*"
    r"|(take|remove) (me|my number) (off|from)\b|remove me|revoke (my )?consent"
    r"|no (me )?(manden?|envien?|escriban?|llamen?|llame) mas"
    r"|no mas (mensajes|textos|llamadas)|dejen? de (mandar|enviar|escribir|llamar)\w*|dar(me)? de baja)\b"
)
_FEW = 4
"""A reply of so few words that holds "stop" asks to stop; in a longer one it may mean anything ("I'll stop by")."""


def read(text: str, channel: Channel = Channel.SMS) -> tuple[ReplyIntent, ...]:
    """What a reply asks for, most pressing first; two where it is to be obeyed and then read by a person.

    A whole reply that is a known word or phrase is taken at that; of a longer one only a wish to stop is guessed,
    since obeying that wrongly costs a reminder, and obeying any other wrongly may cost a visit.
    """
    words = _plain(text)
    if channel is Channel.VOICE and words in KEYS:
        return (KEYS[words],)
    if words == "cancel":
        return (ReplyIntent.STOP, ReplyIntent.OTHER)
    if words in STOP_WORDS or _asks_to_stop(words):
        return (ReplyIntent.STOP,)
    if words in CANCEL_WORDS:
        return (ReplyIntent.CANCEL,)
    if words in CONFIRM_WORDS:
        return (ReplyIntent.CONFIRM,)
    if words in HELP_WORDS:
        return (ReplyIntent.HELP,)
    return (ReplyIntent.OTHER,)


def _asks_to_stop(words: str) -> bool:
    if _STOP_PHRASE.search(words):
        return True
    each = words.split()
    return "stop" in each and len(each) <= _FEW and not {"by", "at"} & set(each)


def _plain(text: str) -> str:
    """Lower case, without accents, punctuation and other ornament, single spaces."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(re.sub(r"[^a-z0-9]+", " ", re.sub(r"[’'`´]", "", bare.casefold())).split())
