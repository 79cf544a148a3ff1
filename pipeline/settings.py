"""Every setting, its default and its sentence. Read once at the start; fails naming what is missing.

Each comes from an environment variable `SMT_...`, from a `.env` file, or, for secrets in files, from the file that
`SMT_..._FILE` names (the way Docker and systemd hand over secrets).
"""

import os
import re
from datetime import date
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.errors import UsageError

PREFIX = "SMT_"
# What PayPal's webhook simulator signs for, to the letter (https://developer.paypal.com/api/rest/webhooks/simulator/).
SIMULATOR = "WEBHOOK_ID"
DEMO_FILE = "demo.json"  # in the data folder: describes the demo that is kept there


class SettingsError(UsageError):
    """A setting is missing or cannot be read. The message names it and says what to do."""


class Settings(BaseSettings):
    """What an operator can set. Prices and cycles are PayPal's to tell; see docs/operate.md for how to choose."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    data_dir: Path = Field(Path("var"), description="Folder for the database, keys, certificates and caught mail.")
    database_url: str = Field("", description="SQLite file in the data folder unless a postgresql:// URL is given.")
    broker_url: str = Field("memory://", description="memory:// serves one process; amqp://… serves many.")
    master_key_file: Path | None = Field(None, description="The master key; keys/master.key in the data folder.")

    smtp_url: str = Field("", description="Where mail goes, smtp://host:port. Empty: mail stays owed.")
    smtp_connections: int = Field(10, ge=1, le=50, description="Connections kept open to the relay.")
    relay_log: Path | None = Field(None, description="Postfix's log; with it mails in doubt are settled by themselves.")
    mail_from: str = Field("billing@example.com", description="The address mails come from; replies are read there.")
    bounce_domain: str = Field("", description="Domain of the envelope senders; that of mail_from unless set.")
    operator_email: str = Field("", description="Who is told when an event is parked. Empty: nobody.")

    vendor_name: str = Field("SMT Constructions", description="The vendor's name, as customers read it.")
    vendor_url: str = Field("https://smtconstructions.example.com", description="The vendor's site, shown in mails.")
    vendor_address: str = Field("", description="Postal address in the footer of mails.")
    vendor_colour: str = Field("#1d4e89", pattern=r"#[0-9a-fA-F]{6}", description="Colour of headings and links.")
    product_name: str = Field("SMT-CRM", description="What the customer subscribes to.")
    support_email: str = Field("", description="Where customers ask for help; mail_from unless set.")
    plans: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="Plans offered at sign-up, name=P-ID, separated by commas."
    )
    privacy_email: str = Field("", description="Where people ask about their data; support_email unless set.")
    inbound_maildir: Path | None = Field(None, description="Maildir of the contact address; read every minute if set.")
    product_command: str = Field("", description="Command that exports or erases a customer in the product itself.")
    product_url: str = Field("", description="Address that the same is posted to, instead of a command.")
    product_token: SecretStr = Field(SecretStr(""), description="Bearer token for product_url.")
    country: str = Field(
        "", pattern="^([A-Z]{2})?$", description="Two letters, as DE: whose law decides how long invoices are kept."
    )
    erase_wait_hours: int = Field(72, ge=0, le=240, description="Hours in which a deletion can still be cancelled.")
    backup_dir: Path | None = Field(None, description="Folder for backups, apart from the data folder.")
    backup_recipient: str = Field("", description="age recipient (age1…) that backups are encrypted for.")
    backup_days: int = Field(30, ge=1, description="Days that copies of the database are kept.")
    backup_keys_days: int = Field(7, ge=1, description="Days that copies of the keys are kept; the newest always is.")
    locale: str = Field("en_US", description="How dates and money are written for people.")

    paypal_base_url: str = Field("https://api-m.sandbox.paypal.com", description="Sandbox or live API.")
    paypal_client_id: str = Field("", description="REST app id. Empty: nothing is read from PayPal.")
    paypal_client_secret: SecretStr = Field(SecretStr(""), description="REST app secret.")
    paypal_webhook_id: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Ids of the webhooks whose signatures are accepted, separated by commas."
    )
    paypal_accept_simulator: bool = Field(
        False, description="Accept PayPal's simulator events. Never beside a live id."
    )
    paypal_trust_anchors: Path | None = Field(
        None, description="PEM bundle; with it the certificate chain is checked too."
    )

    private_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Networks that never leave this machine, as that of its containers, separated by commas."
    )
    policy_effective: date = Field(date(2025, 5, 1), description="The day the privacy policy's first text took effect.")

    web_host: str = Field("127.0.0.1", description="Address the web role listens on.")
    web_port: int = Field(8000, ge=0, le=65535, description="Port the web role listens on; 0 picks a free one.")
    reminder_days_yearly: int = Field(30, ge=1, le=90, description="Days before a renewal of a year or more.")
    reminder_days_monthly: int = Field(3, ge=1, le=28, description="Days before a renewal of a month or more.")
    public_url: str = Field("", description="Where our pages can be reached from outside, for links in mails.")
    health_limit_seconds: int = Field(300, ge=1, description="/healthz answers 503 past this age of work undone.")

    @field_validator("paypal_webhook_id", "private_networks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("plans", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """`Cloud, monthly` has a comma: what has no `=P-` of its own belongs to the next name."""
        if not isinstance(value, str):
            return value
        pairs = re.findall(r"\s*(.+?)\s*=\s*(P-[A-Z0-9]+)\s*(?:,|$)", value)
        if re.sub(r"\s*(.+?)\s*=\s*(P-[A-Z0-9]+)\s*(?:,|$)", "", value).strip():
            raise ValueError("must be name=P-ID pairs, separated by commas: Cloud (monthly)=P-5ML4271244454362WXNWU5NQ")
        return dict(pairs)

    @field_validator("public_url")
    @classmethod
    def _reachable(cls, value: str) -> str:
        """Sessions and links may travel encrypted only, or not leave this machine."""
        parts = urlsplit(value)
        local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
        if value and (
            not parts.hostname or not (local or parts.scheme == "https") or parts.path.strip("/") or parts.query
        ):
            raise ValueError("must be https:// and a host without a path; http:// only for this machine")
        return value and f"{parts.scheme}://{parts.netloc}"

    @field_validator("locale")
    @classmethod
    def _known(cls, value: str) -> str:
        from babel import Locale, UnknownLocaleError  # noqa: PLC0415 - heavy, and seldom needed

        try:
            Locale.parse(value.replace("-", "_"))
        except (ValueError, UnknownLocaleError):
            raise ValueError(f"there is no locale {value}; write it as en_US") from None
        return value

    @field_validator("private_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)  # raises ValueError, naming it
        return value

    @field_validator("database_url")
    @classmethod
    def _driver(cls, value: str) -> str:
        """`postgres://` and `postgresql://` mean psycopg 3, the one driver we ship."""
        scheme, mark, rest = value.partition("://")
        if scheme in ("postgres", "postgresql", "postgresql+psycopg"):
            return "postgresql+psycopg://" + rest
        if value and (scheme, mark) != ("sqlite", "://"):
            raise ValueError("must begin with postgresql:// or sqlite:///")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _SecretFiles(settings_cls), dotenv_settings

    @property
    def database(self) -> str:
        """The SQLAlchemy URL: the one set, else a SQLite file in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir / 'smt-billing.db'}"

    @property
    def master_key(self) -> Path:
        return self.master_key_file or self.data_dir / "keys" / "master.key"

    @property
    def certificates_dir(self) -> Path:
        """The folder of PayPal's signing certificates that were fetched."""
        return self.data_dir / "certificates"

    @property
    def envelope_domain(self) -> str:
        return self.bounce_domain or self.mail_from.rpartition("@")[2]

    @property
    def pages_url(self) -> str:
        """Where our pages are, without a slash at the end: as set, else on this machine."""
        return self.public_url.rstrip("/") or f"http://{self.web_host}:{self.web_port}"

    @property
    def has_paypal_credentials(self) -> bool:
        """Whether we hold credentials to read from PayPal's API."""
        return bool(self.paypal_client_id and self.paypal_client_secret.get_secret_value())

    def require(self, *names: str) -> None:
        """Raise SettingsError naming every one of these settings that is empty."""
        missing = [variable(name) for name in names if not _filled(getattr(self, name))]
        if missing:
            raise SettingsError(f"set {', '.join(missing)} (or {missing[0]}_FILE) in the environment or in .env")


class _SecretFiles(PydanticBaseSettingsSource):
    """`SMT_X_FILE=/run/secrets/x` gives `SMT_X`. A named file that is missing fails loudly."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(variable(field_name) + "_FILE", "")
        # A setting that is itself a file, SMT_MASTER_KEY_FILE, is no secret to be read from one.
        if not path or field_name + "_file" in Settings.model_fields:
            return None, field_name, False
        try:
            return Path(path).read_text("utf-8").rstrip("\n"), field_name, False
        except OSError as error:
            raise SettingsError(f"{variable(field_name)}_FILE names {path}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise SettingsError(f"{variable(field_name)}_FILE names {path}: not UTF-8 text") from None

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in Settings.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


def variable(name: str) -> str:
    """The environment variable of a setting: `data_dir` is `SMT_DATA_DIR`."""
    return PREFIX + name.upper()


def load(**overrides: Any) -> Settings:
    """Read the settings. Raises SettingsError with one line per setting that cannot be read."""
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        lines = [f"{variable(str(item['loc'][0]))}: {item['msg']}" for item in error.errors(include_input=False)]
        raise SettingsError("; ".join(lines)) from None
    if settings.paypal_accept_simulator and settings.paypal_webhook_id:
        raise SettingsError(
            "SMT_PAYPAL_ACCEPT_SIMULATOR is on beside SMT_PAYPAL_WEBHOOK_ID: anyone can have PayPal's simulator sign "
            "events for any address, and they would change the books. Unset one of the two."
        )
    if SIMULATOR in settings.paypal_webhook_id:
        raise SettingsError(
            f"SMT_PAYPAL_WEBHOOK_ID holds {SIMULATOR}, which is PayPal's simulator and no webhook of yours. To try it out, "
            "set SMT_PAYPAL_ACCEPT_SIMULATOR=true instead"
        )
    return settings


def _filled(value: object) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)
