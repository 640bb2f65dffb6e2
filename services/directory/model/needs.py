"""From a taxonomy's words to the needs that CareRelay follows, and from language codes to one spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable

from services.directory.model.hsds import ServiceFull, TaxonomyTerm
from shared.contracts.intake import Barrier

_WORDS: dict[str, Barrier] = {
    # Terms of the Open Eligibility taxonomy, and the words that 211 directories use for the same help.
    "translation interpretation": Barrier.INTERPRETER,
    "language interpretation": Barrier.INTERPRETER,
    "medical interpretation": Barrier.INTERPRETER,
    "interpretation translation": Barrier.INTERPRETER,
    "interpreter": Barrier.INTERPRETER,
    "interpreter services": Barrier.INTERPRETER,
    "transportation": Barrier.TRANSPORTATION,
    "transportation for healthcare": Barrier.TRANSPORTATION,
    "medical transportation": Barrier.TRANSPORTATION,
    "medical appointments transportation": Barrier.TRANSPORTATION,
    "non emergency medical transportation": Barrier.TRANSPORTATION,
    "bus passes": Barrier.TRANSPORTATION,
    "help pay for transit": Barrier.TRANSPORTATION,
    "prescription assistance": Barrier.PRESCRIPTION_ASSISTANCE,
    "prescription expense assistance": Barrier.PRESCRIPTION_ASSISTANCE,
    "prescription drug assistance": Barrier.PRESCRIPTION_ASSISTANCE,
    "medication assistance": Barrier.PRESCRIPTION_ASSISTANCE,
}

_ISO_639_2 = {
    "eng": "en", "spa": "es", "fra": "fr", "fre": "fr", "zho": "zh", "chi": "zh", "vie": "vi", "kor": "ko",
    "rus": "ru", "ara": "ar", "por": "pt", "pol": "pl", "tgl": "tl", "hat": "ht", "urd": "ur", "hin": "hi",
    "jpn": "ja", "deu": "de", "ger": "de", "ita": "it", "fas": "fa", "per": "fa", "som": "so", "amh": "am",
}  # fmt: skip


def need_of(term: TaxonomyTerm) -> Barrier | None:
    """The need that a taxonomy term stands for: by its code where that is one of ours, else by its name."""
    code = (term.code or "").strip().casefold()
    if code in set(Barrier):
        return Barrier(code)
    return _WORDS.get(" ".join(re.findall(r"[^\W_]+", term.name.casefold())))


def needs_of(service: ServiceFull) -> tuple[Barrier, ...]:
    """The needs that a service meets, in alphabetical order."""
    return tuple(sorted({need for term in service.terms() if (need := need_of(term)) is not None}))


def language(code: str) -> str:
    """A language code without region or script, ISO 639-1 where there is one: ``spa`` and ``es-MX`` are ``es``."""
    primary = re.split(r"[-_]", code.strip().casefold(), maxsplit=1)[0]
    return _ISO_639_2.get(primary, primary)


def languages_of(service: ServiceFull) -> tuple[str, ...]:
    """The languages in which a service helps: its own, its places' and those in which its phones are answered."""
    spoken = [*service.languages]
    for phone in service.phones:
        spoken.extend(phone.languages)
    for location in service.places():
        spoken.extend(location.languages)
    return tuple(sorted({language(one.code) for one in spoken if one.code}))


def words_of(texts: Iterable[str | None]) -> tuple[str, ...]:
    """The words (three letters or more, without case) by which a text can be found."""
    return tuple(sorted({word for text in texts if text for word in re.findall(r"[^\W_]{3,}", text.casefold())}))
