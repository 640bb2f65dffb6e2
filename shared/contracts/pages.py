"""The published language as pages to read: an index, and one page a service, made from its AsyncAPI document.

``python -m shared.contracts.pages FOLDER`` writes plain HTML that needs no script and no style from elsewhere. The
generators that AsyncAPI offers want a browser to be downloaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from .asyncapi import Document, documents, text_of

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f4f4f2; }
pre { padding: .75rem; overflow-x: auto; } code { padding: 0 .2em; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; }
section { border-top: 2px solid #ddd; margin-top: 2rem; } h3 { margin-bottom: 0; }
"""


def pages() -> dict[str, str]:
    """The text of every file, by its name."""
    found = documents()
    made = {"index.html": _index(found)}
    for service, document in found.items():
        made[f"{service}.html"] = _page(service, document)
        made[f"{service}.json"] = text_of(document)
    return made


def _whole(title: str, body: Iterator[str]) -> str:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en">\n<head>{head}<style>{_STYLE}</style></head>\n<body>\n' + (
        "\n".join([f"<h1>{escape(title)}</h1>", *body, "</body>\n</html>\n"])
    )


def _index(found: dict[str, Document]) -> str:
    def body() -> Iterator[str]:
        yield "<table><tr><th>service</th><th>topics</th><th>what it tells</th></tr>"
        for service, document in found.items():
            topics = ", ".join(f"<code>{escape(c['address'])}</code>" for c in document["channels"].values())
            link = f'<a href="{service}.html">{escape(service)}</a>'
            yield f"<tr><td>{link}</td><td>{topics}</td><td>{escape(document['info']['description'])}</td></tr>"
        yield "</table>"

    return _whole("CareRelay: events", body())


def _page(service: str, document: Document) -> str:
    schemas = document["components"]["schemas"]

    def body() -> Iterator[str]:
        yield f"<p>{escape(document['info']['description'])} Version {escape(document['info']['version'])}."
        yield f'<a href="index.html">All services</a>, <a href="{service}.json">AsyncAPI 3.0 document</a>.</p>'
        for channel in document["channels"].values():
            yield f"<h2><code>{escape(channel['address'])}</code></h2>"
            partitions = channel["bindings"]["kafka"]["partitions"]
            yield f"<p>{escape(channel['description'])} {partitions} partitions; the key is the document's id.</p>"
            names = [reference["$ref"].rpartition("/")[2] for reference in channel["messages"].values()]
            yield "<ul>"
            yield from (_contents(document["components"]["messages"][name]) for name in names)
            yield "</ul>"
            for name in names:
                yield from _event(document["components"]["messages"][name], schemas)
        yield "<section><h2>Headers of every event</h2>"
        yield f"<p>{escape(schemas['Envelope']['description'])}</p>"
        yield from _fields(schemas["Envelope"], schemas)
        yield "</section>"

    return _whole(document["info"]["title"], body())


def _contents(message: Document) -> str:
    name = escape(message["name"])
    return f'<li><a href="#{name}"><code>{name}</code></a> {escape(message["summary"])}</li>'


def _event(message: Document, schemas: Document) -> Iterator[str]:
    name = escape(message["name"])
    yield f'<section id="{name}"><h3><code>{name}</code></h3>'
    yield "".join(f"<p>{escape(part)}</p>" for part in message["description"].split("\n\n"))
    yield from _fields(message["payload"], schemas)
    for example in message["examples"]:
        text = json.dumps(example["payload"], indent=2, ensure_ascii=False)
        yield f"<details><summary>example: {escape(example['name'])}</summary><pre>{escape(text)}</pre></details>"
    yield "</section>"


def _fields(schema: Document, schemas: Document) -> Iterator[str]:
    yield "<table><tr><th>field</th><th>type</th><th>required</th><th></th></tr>"
    for path, field, required in _rows(schema, schemas, ""):
        cells = (f"<code>{escape(path)}</code>", escape(_type(field, schemas)), "yes" if required else "")
        told = " ".join(field.get("description", "").split())
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}<td>{escape(told)}</td></tr>"
    yield "</table>"


def _rows(schema: Document, schemas: Document, under: str) -> Iterator[tuple[str, Document, bool]]:
    """Every field of an object and of the objects in it: its path, its schema, whether it must be there."""
    for name, field in schema.get("properties", {}).items():
        path = f"{under}.{name}" if under else name
        yield path, field, name in schema.get("required", ())
        for part, suffix in _parts(field, schemas):
            yield from _rows(part, schemas, f"{path}{suffix}")


def _parts(field: Document, schemas: Document) -> Iterator[tuple[Document, str]]:
    """The objects that a field may hold, and what its path is followed by."""
    if "$ref" in field:
        yield schemas[_named(field)], ""
    for choice in field.get("anyOf", ()):
        yield from _parts(choice, schemas)
    if "items" in field:
        yield from ((part, f"[]{suffix}") for part, suffix in _parts(field["items"], schemas))


def _named(field: Document) -> str:
    return str(field["$ref"]).rpartition("/")[2]


def _type(field: Any, schemas: Document) -> str:
    """What a field holds, in words."""
    if "$ref" in field:
        return _type(schemas[_named(field)], schemas)
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(choice, schemas) for choice in field["anyOf"] if not _is_null(choice)))
    if "const" in field:
        return f'"{field["const"]}"'
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), schemas)}"
    return str(field.get("format") or field.get("type") or "any")


def _is_null(choice: Document) -> bool:
    return choice.get("type") == "null"


def main(folder: str) -> int:
    """Write the pages into a folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
