"""What every process of every service is configured with, from the environment."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from ssl import SSLContext
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, IPvAnyNetwork, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.kit.bus.login import Login, Mechanism, prove, trusting


def _listed(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class KitSettings(BaseSettings):
    """Environment variables, named as the fields in capitals. A service adds its own in a subclass."""

    # An empty variable is an absent one: compose and Kubernetes hand on what nobody has set as nothing.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True)

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_partitions: int = Field(12, ge=1, description="for topics that do not exist yet")
    kafka_replication: int = Field(1, ge=1)
    kafka_idempotence: bool = Field(False, description="off for the embedded broker, which cannot")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Mechanism = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_ca_file: Path | None = Field(None, description="PEM: who signs brokers; the system's by default")
    kafka_ssl_certificate_file: Path | None = Field(None, description="PEM: proves this process to the broker")
    kafka_ssl_key_file: Path | None = Field(None, description="PEM: its key, without a passphrase")
    mongodb_uri: str = "mongodb://127.0.0.1:27017"
    mongodb_database: str | None = Field(None, description="the service's name by default")
    mongodb_driver: Literal["pymongo", "motor"] = "pymongo"

    outside_public_only: bool = Field(False, description="make no outside call to an address that is not public")
    outside_also: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_listed)] = Field(
        (), description="networks that may be called all the same, separated by commas: 10.1.0.0/16,fd00::/8"
    )

    http_host: str = "127.0.0.1"
    http_port: int = Field(8000, ge=0, le=65535)
    jwks_url: str = "http://127.0.0.1:8080/.well-known/jwks.json"
    jwt_issuer: str = "http://127.0.0.1:8080"
    jwt_audience: str = "carerelay"
    jwt_algorithms: tuple[str, ...] = ("ES256", "RS256")

    clock_offset_file: Path | None = None
    traces_file: Path | None = None
    otel_exporter_otlp_endpoint: str | None = None
    trace_sample_ratio: float = Field(0.1, ge=0, le=1)
    signals_seconds: float = Field(10.0, gt=0, description="how often lag, ages and what is parked are looked at")
    orders_seconds: float = Field(1.0, gt=0, description="how often a process asks what operators have ordered")
    log_level: str = "INFO"

    batch_records: int = Field(500, ge=1)
    max_body_bytes: int = Field(1024 * 1024, ge=1)
    max_event_bytes: int = Field(900_000, ge=1)
    max_requests: int = Field(64, ge=1, description="requests in work at once; beyond that 429")
    max_publishing: int = Field(10_000, ge=1, description="documents waiting to be published; beyond that the sweeper")
    lease_seconds: float = Field(
        6.0, gt=0, description="with its margin, how long a dead worker's slots lie idle: up to 5/3 of it and a look"
    )
    lease_margin_seconds: float = Field(1.5, ge=0)
    poll_seconds: float = Field(0.5, gt=0, description="how often a worker looks for due work")
    call_ahead_seconds: float = Field(
        0.5, ge=0, description="how long before a paced call its intention may be written"
    )
    sweep_after_seconds: float = Field(3.0, ge=0, description="how long an event may wait before it is swept")
    stuck_seconds: float = Field(
        30.0, gt=0, description="how long a reader may stand still before unread records until its client is replaced"
    )
    drain_seconds: float = Field(20.0, gt=0, description="how long SIGTERM waits for what is in work")

    @cached_property
    def kafka_login(self) -> Login | None:
        """As whom the broker is spoken to, where it asks for that by SASL."""
        if not self.kafka_security_protocol.startswith("SASL_"):
            return None
        if self.kafka_sasl_username is None or self.kafka_sasl_password is None:
            raise ValueError("KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD go with KAFKA_SECURITY_PROTOCOL=SASL_...")
        return Login(self.kafka_sasl_mechanism, self.kafka_sasl_username, self.kafka_sasl_password.get_secret_value())

    @cached_property
    def kafka_tls(self) -> SSLContext | None:
        """How the broker is spoken to, where that is by TLS. The files are read once, when the settings are."""
        if not self.kafka_security_protocol.endswith("SSL"):
            return None
        try:
            context = trusting(self.kafka_ssl_ca_file)
        except OSError as error:
            raise ValueError(f"KAFKA_SSL_CA_FILE: {error.strerror or error}") from error
        if self.kafka_ssl_certificate_file is not None:
            try:
                prove(context, self.kafka_ssl_certificate_file, self.kafka_ssl_key_file)
            except OSError as error:
                files = "KAFKA_SSL_CERTIFICATE_FILE, KAFKA_SSL_KEY_FILE"
                raise ValueError(f"{files}: {error.strerror or error}") from error
        return context

    @model_validator(mode="after")
    def _kafka_is_spoken_to_as_asked(self) -> Self:
        """Refuse what would be left out unsaid: a user, or a file, that the protocol has no use for.

        A password alone is none: it comes with a Secret, which may be there before it is wanted.
        """
        of_no_use = {"kafka_sasl_username"} if self.kafka_login is None else set()
        if self.kafka_tls is None:
            of_no_use |= {"kafka_ssl_ca_file", "kafka_ssl_certificate_file", "kafka_ssl_key_file"}
        if given := sorted(name.upper() for name in of_no_use if getattr(self, name) is not None):
            protocol = self.kafka_security_protocol
            raise ValueError(f"{', '.join(given)}: of no use with KAFKA_SECURITY_PROTOCOL={protocol}")
        if self.kafka_ssl_key_file is not None and self.kafka_ssl_certificate_file is None:
            raise ValueError("KAFKA_SSL_KEY_FILE goes with KAFKA_SSL_CERTIFICATE_FILE")
        return self
