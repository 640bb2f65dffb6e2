"""Letters as PDF: one page of US Letter, the address where a window envelope shows it."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from services.notifications.model.recipient import Recipient
from services.notifications.templates import Sender, Wording

_ALPHABET = "latin-1"  # what a PDF's built-in fonts can show
_WITHOUT_BASE = str.maketrans(
    {"ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ı": "i", "œ": "oe", "Œ": "OE", "ħ": "h", "Ħ": "H"}
    | {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-"}
)
"""Letters that Unicode does not take apart into a plain one and its mark, and quotes."""


class Unprintable(Exception):
    """A name or an address is in a script that the letter's font does not have; the post could not read it either."""


def letter(person: Recipient, wording: Wording, sender: Sender, language: str, made_at: datetime) -> bytes:
    """One letter. The same letter has the same bytes: the gateway may compare. Raises Unprintable."""
    from fpdf import FPDF  # 32 MB that only a process that makes letters needs to have

    page = FPDF(format="letter")
    page.set_creation_date(made_at)
    page.set_producer("CareRelay")
    page.set_lang(language)
    page.set_title(printable(wording.subject))
    page.set_margins(25, 20)
    page.set_auto_page_break(True, 20)
    page.add_page()
    page.set_font("Helvetica", size=9)
    page.cell(0, 5, printable(f"{sender.clinic} · {sender.phone}"), new_x="LMARGIN", new_y="NEXT")
    page.set_y(50)
    page.set_font("Helvetica", size=11)
    page.multi_cell(0, 5.5, "\n".join(printable(line) for line in address_lines(person)), new_x="LMARGIN", new_y="NEXT")
    page.set_y(100)
    page.set_font("Helvetica", style="B", size=14)
    page.multi_cell(0, 8, printable(wording.subject), new_x="LMARGIN", new_y="NEXT")
    page.ln(4)
    page.set_font("Helvetica", size=12)
    page.multi_cell(0, 6.5, printable(wording.body), new_x="LMARGIN", new_y="NEXT")
    return bytes(page.output())


def address_lines(person: Recipient) -> list[str]:
    """Name and address, as on an envelope."""
    where = person.address
    name = " ".join((*person.given, person.family or "")).strip()
    if where is None:
        return [name]
    place = f"{where.city or ''}, {where.state or ''} {where.postal_code or ''}".strip(", ")
    country = [] if where.country in ("US", "USA") else [where.country]
    return [line for line in (name, *where.lines, place, *country) if line]


def printable(text: str) -> str:
    """The text with what the font has: é stays, ễ becomes e. Raises Unprintable for a script that it lacks."""
    out = []
    for character in unicodedata.normalize("NFC", text).translate(_WITHOUT_BASE):
        plain = character if _has(character) else unicodedata.normalize("NFKD", character)[0]
        if not _has(plain):
            raise Unprintable
        out.append(plain)
    return "".join(out)


def _has(character: str) -> bool:
    try:
        character.encode(_ALPHABET)
    except UnicodeEncodeError:
        return False
    return True
