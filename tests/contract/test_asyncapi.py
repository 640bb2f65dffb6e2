"""The AsyncAPI documents say what is published, the specification's own parser takes them, and pages show them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from shared.contracts import __version__, asyncapi, pages
from shared.contracts.snapshot import EXAMPLES, events
from shared.kit.settings import KitSettings
from tests.conftest import ROOT
from tests.contract.services import WIRING
from tests.contract.test_examples import record_of

FOLDER = ROOT / "docs" / "asyncapi"
CHECK = ROOT / "tests" / "tools" / "asyncapi"
DOCUMENTS = asyncapi.documents()
EVENTS = {type: event for type, event in events().items() if event.topic.endswith((".events", ".people"))}


def messages(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A document's messages by event type."""
    return {message["name"]: message for message in document["components"]["messages"].values()}


ALL = {type: (document, message) for document in DOCUMENTS.values() for type, message in messages(document).items()}


def test_the_documents_on_file_are_what_the_contracts_say() -> None:
    written = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    made = {service: asyncapi.text_of(document) for service, document in DOCUMENTS.items()}
    assert written == made, "run: python -m shared.contracts.asyncapi docs/asyncapi"


def test_every_service_has_a_document_and_every_public_event_is_in_its_publishers() -> None:
    assert set(DOCUMENTS) == set(WIRING)
    assert set(ALL) == set(EVENTS)
    for type, (document, _) in ALL.items():
        assert document["id"].endswith(f":{EVENTS[type].topic.partition('.')[0]}")


def test_private_topics_are_nobodys_business() -> None:
    topics = {channel["address"] for document in DOCUMENTS.values() for channel in document["channels"].values()}
    assert {topic.partition(".")[2] for topic in topics} == {"events", "people"}


@pytest.mark.parametrize("type", EVENTS)
def test_an_event_as_it_is_published_fits_its_document(type: str) -> None:
    document, message = ALL[type]
    root = {"components": document["components"]}
    for payload in json.loads((EXAMPLES / f"{type}.json").read_text(encoding="utf-8")).values():
        record = record_of(type, payload)
        headers = {name: value.decode() for name, value in record.headers}
        Draft202012Validator({**message["headers"], **root}).validate(headers)
        Draft202012Validator({**message["payload"], **root}).validate(json.loads(record.value or b""))
        assert (record.key or b"").decode() == headers["ce_subject"]
        assert headers.keys() <= asyncapi.ENVELOPE.keys()
    lacking = {name: value for name, value in headers.items() if name != "ce_sequence"}
    assert not Draft202012Validator({**message["headers"], **root}).is_valid(lacking)
    assert not Draft202012Validator({**message["headers"], **root}).is_valid({**headers, "ce_type": "other.v1"})


def test_the_partitions_are_those_that_a_service_makes() -> None:
    assert KitSettings.model_fields["kafka_partitions"].default == asyncapi.PARTITIONS


# -- the specification's own parser ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parser as locked, in a cache of the user's: installed once for each lock, never into the checkout."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs Node (node and npm on PATH) to run @asyncapi/parser")
    lock = (CHECK / "package-lock.json").read_bytes()
    place = Path.home() / ".cache" / "carerelay" / f"asyncapi-{sha256(lock).hexdigest()[:16]}"
    if not (place / "node_modules").is_dir():
        fresh = tmp_path_factory.mktemp("asyncapi")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(CHECK / name, fresh)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("@asyncapi/parser could not be installed within two minutes")
        if done.returncode:
            pytest.skip(f"@asyncapi/parser could not be installed: {done.stderr.strip().splitlines()[:1]}")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():  # Another worker may have been first.
            shutil.move(fresh, place)
    return place / "node_modules"


def parsed(node_modules: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    """What the parser says of documents."""
    command = ["node", str(CHECK / "validate.cjs"), *map(str, files)]
    environment = {"NODE_PATH": str(node_modules), "PATH": str(Path(shutil.which("node") or "").parent)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


@pytest.mark.xdist_group("asyncapi-parser")
def test_the_specifications_own_parser_takes_every_document(node_modules: Path, tmp_path: Path) -> None:
    files = sorted(FOLDER.glob("*.json"))
    done = parsed(node_modules, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"{f}: {len(messages(json.loads(f.read_text())))} messages" for f in files]

    wrong = json.loads(files[0].read_text(encoding="utf-8"))
    next(iter(wrong["operations"].values()))["action"] = "shout"
    wrong_file = tmp_path / "wrong.json"
    wrong_file.write_text(json.dumps(wrong), encoding="utf-8")
    refused = parsed(node_modules, wrong_file)
    assert refused.returncode == 1
    assert "action" in refused.stdout


def test_the_parsers_lock_names_no_address() -> None:
    lock = json.loads((CHECK / "package-lock.json").read_text(encoding="utf-8"))
    assert all("resolved" not in package for package in lock["packages"].values())
    assert all("integrity" in package for name, package in lock["packages"].items() if name)


# -- the pages -------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page shows and where it leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.shown = ""
        self.ids: set[str] = set()
        self.leads: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            if name in ("href", "src"):
                self.leads.append(value or "")

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_the_pages_show_every_event_with_every_field_and_lead_only_to_themselves(tmp_path: Path) -> None:
    assert pages.main(str(tmp_path)) == 0
    found = {path.name: Page(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.html")}
    assert set(found) == {"index.html", *(f"{service}.html" for service in DOCUMENTS)}
    for type, (document, message) in ALL.items():
        page = found[f"{document['id'].rpartition(':')[2]}.html"]
        assert type in page.ids
        assert set(message["payload"]["properties"]) <= set(re.findall(r"[\w.\[\]]+", page.shown))
        assert __version__ in page.shown
    for page in found.values():
        assert page.tags.isdisjoint({"script", "link", "img", "iframe"})
        for lead in page.leads:
            file, _, part = lead.partition("#")
            assert (part in page.ids) if not file else (tmp_path / file).is_file()
