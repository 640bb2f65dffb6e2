"""The bus on a Kafka that lets nobody in unproven: TLS, users by SASL, certificates of processes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from deploy.embedded import Stack
from deploy.embedded.foundation import Foundation
from deploy.embedded.ports import LOOPBACK
from deploy.embedded.supervision import Program
from deploy.native import Native
from deploy.native.artifacts import java
from shared.kit.bus.kafka import KafkaBus
from shared.kit.bus.port import Message
from shared.kit.run import bus_of
from shared.kit.settings import KitSettings
from shared.kit.testing.bus_suite import PARTITIONS, BusSuite, Connect, Reader, put

pytestmark = pytest.mark.native

USER, PASSWORD = "carerelay", "only in this test"

PREFIX = "suite-"

PROPERTIES = """\
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller},SASL_SSL://{host}:{login},SSL://{host}:{mutual}
advertised.listeners=PLAINTEXT://{host}:{broker},SASL_SSL://{host}:{login},SSL://{host}:{mutual}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/authority.pem
listener.name.ssl.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""

_TOPIC, _GROUP = 2, 3
_READ, _WRITE, _CREATE, _DESCRIBE = 3, 4, 5, 8
_PREFIXED, _ALLOW = 4, 3
"""Kafka's numbers (ResourceType, AclOperation, PatternType, AclPermissionType)."""

ALLOWED = ((_TOPIC, _CREATE), (_TOPIC, _DESCRIBE), (_TOPIC, _READ), (_TOPIC, _WRITE), (_GROUP, _READ))
"""What docs/operations.md says a user needs, here of all that begins with the suite's name, and nothing else."""


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


_SIGNS, _PROVES = _usage(signs=True), _usage(signs=False)


class Authority:
    """Signs certificates; ``folder`` gets its own as ``authority.pem``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of this test")])
        self.file = folder / "authority.pem"
        own = self._certificate(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0), _SIGNS)
        self.file.write_bytes(own.public_bytes(Encoding.PEM))

    def sign(self, name: str) -> Path:
        """A file with a key and a certificate of that name, on this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        here = x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))])
        signed = self._certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, here, _PROVES)
        file = self._folder / f"{name}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + signed.public_bytes(Encoding.PEM))
        return file

    def _certificate(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, says: x509.ExtensionType, usage: x509.KeyUsage
    ) -> x509.Certificate:
        """With all that Python 3.13 insists on: key identifiers and usage."""
        now, own = datetime.now(UTC), self._key.public_key()
        return (
            x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=12))
            .add_extension(says, critical=isinstance(says, x509.BasicConstraints))
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
            .sign(self._key, hashes.SHA256())
        )


class Guarded(Native):
    """The native Kafka with two more doors: ``login`` for users by SASL, ``mutual`` for certificates; both by TLS."""

    ports = (*Native.ports, "login", "mutual")

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.doors: dict[str, str] = {}

    def programs(self, folder: Path, ports: Mapping[str, int]) -> tuple[Program, ...]:
        """The same programs, the broker with more properties."""
        self.doors = {name: f"{LOOPBACK}:{port}" for name, port in ports.items()}
        more = self._folder / "guarded.properties"
        more.write_text(PROPERTIES.format(host=LOOPBACK, folder=self._folder, user=USER, password=PASSWORD, **ports))
        broker, *others = super().programs(folder, ports)
        return replace(broker, argv=[*broker.argv, "--more", str(more)]), *others

    def know(self, mechanism: str) -> None:
        """Have the broker keep what proves the user's password."""
        tool = [
            java(),
            "-cp",
            f"{self.jars}/*",
            "kafka.admin.ConfigCommand",
            "--bootstrap-server",
            self.doors["broker"],
        ]
        user = ["--alter", "--entity-type", "users", "--entity-name", USER]
        subprocess.run([*tool, *user, "--add-config", f"{mechanism}=[password={PASSWORD}]"], check=True, timeout=60)


async def allow(servers: str, principals: Sequence[str]) -> None:
    """Have the broker let these do what a service does, and nothing else."""
    client = AIOKafkaClient(bootstrap_servers=servers)
    await client.bootstrap()
    try:
        for principal, (kind, operation) in product(principals, ALLOWED):
            wanted = CreateAclsRequest(kind, PREFIX, _PREFIXED, f"User:{principal}", "*", operation, _ALLOW)
            answer = await client.send(client.get_random_node(), wanted)
            assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await client.close()


@dataclass(frozen=True, slots=True)
class Site:
    """A guarded broker, and what a process must be told to be let in."""

    doors: Mapping[str, str]
    authority: Path
    certificate: Path

    def login(self, mechanism: str = "SCRAM-SHA-512", **other: str) -> dict[str, str]:
        """The environment of a process that proves itself as a user."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.doors["login"],
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_SSL_CA_FILE": str(self.authority),
            **other,
        }

    def mutual(self) -> dict[str, str]:
        """The environment of a process that proves itself by a certificate."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.doors["mutual"],
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CA_FILE": str(self.authority),
            "KAFKA_SSL_CERTIFICATE_FILE": str(self.certificate),
            "KAFKA_SSL_KEY_FILE": str(self.certificate),
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, stack_kind: Foundation) -> Iterator[Site]:
    """A broker of these tests' own."""
    assert stack_kind.name == Native.name
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder)
    authority.sign("broker")
    guarded = Guarded(folder)
    with Stack(tmp_path_factory.mktemp("stack"), foundation=guarded, only=["broker"]):
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            guarded.know(mechanism)
        asyncio.run(allow(guarded.doors["broker"], [USER, "CN=process"]))
        yield Site(guarded.doors, authority.file, authority.sign("process"))


@pytest.fixture
def topic() -> str:
    return f"{PREFIX}{uuid4().hex}"


Told = Callable[[Mapping[str, str]], KafkaBus]
"""The bus of a process with this environment."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    def told(environment: Mapping[str, str]) -> KafkaBus:
        common = {"KAFKA_PARTITIONS": str(PARTITIONS), "KAFKA_IDEMPOTENCE": "true"}
        with monkeypatch.context() as patch:
            for name, value in {**common, **environment}.items():
                patch.setenv(name, value)
            return bus_of("intake", KitSettings())

    return told


@pytest.fixture
def connect(site: Site, told: Told) -> Connect:
    return lambda: told(site.login())


class TestSecuredKafkaBus(BusSuite):
    """As a user with a password that is never sent, by TLS."""


async def passes(bus: KafkaBus, topic: str) -> bool:
    """Whether an event comes through it, and the broker tells how far it was read."""
    reader = Reader()
    await bus.ensure([topic])
    bus.subscribe(f"{topic}.group", [topic], reader)
    try:
        await bus.start()
        await put(bus, [Message(topic, "key", b"1")])
        await reader.until_taken(1)
    finally:
        await bus.stop()
    places = await bus.standing(f"{topic}.group", [topic], datetime(1970, 1, 1, tzinfo=UTC))
    return sum(place.committed for place in places) == 1


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_other_mechanisms_let_the_user_in(site: Site, told: Told, topic: str, mechanism: str) -> None:
    assert await passes(told(site.login(mechanism)), topic)


async def test_a_certificate_lets_a_process_in(site: Site, told: Told, topic: str) -> None:
    assert await passes(told(site.mutual()), topic)


async def test_a_wrong_password_lets_nobody_in_and_is_not_told(
    site: Site, told: Told, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KafkaError):
        await told(site.login(KAFKA_SASL_PASSWORD="guessed")).ensure([topic])

    assert "uthentication" in caplog.text
    assert "guessed" not in caplog.text


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda site: {"KAFKA_SSL_CA_FILE": ""}, id="nobody known has signed it"),
        pytest.param(
            lambda site: {"KAFKA_BOOTSTRAP_SERVERS": site.doors["login"].replace(LOOPBACK, "localhost")},
            id="it is signed for another name",
        ),
    ],
)
async def test_a_broker_whose_certificate_does_not_prove_it_is_not_spoken_to(
    site: Site, told: Told, topic: str, caplog: pytest.LogCaptureFixture, other: Callable[[Site], dict[str, str]]
) -> None:
    with pytest.raises(KafkaError):
        await told(site.login(**other(site))).ensure([topic])

    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


async def test_without_a_certificate_the_door_for_certificates_stays_shut(site: Site, told: Told, topic: str) -> None:
    nobody = {**site.mutual(), "KAFKA_SSL_CERTIFICATE_FILE": "", "KAFKA_SSL_KEY_FILE": ""}
    with pytest.raises(KafkaError):
        await told(nobody).ensure([topic])


async def test_a_topic_that_may_not_be_made_is_no_topic_and_that_is_told(site: Site, told: Told) -> None:
    with pytest.raises(TopicAuthorizationFailedError):
        await told(site.login()).ensure(["somebody.elses"])
