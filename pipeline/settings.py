"""All settings, with their defaults and descriptions. They are read once, at the start.

A setting comes from an environment variable `SMT_...`, from the file that `SMT_..._FILE` names (Docker and systemd pass
secrets that way), or from the same two names in a `.env` file, in this order.
"""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import date
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.env_file import EnvFile, EnvFileError, read_env_file, read_protected
from pipeline.errors import UsageError
from pipeline.setting_errors import plain_sentence

PREFIX = "SMT_"
ENV_FILE = Path(".env")  # in the working directory
# The literal webhook id that PayPal's simulator signs for (https://developer.paypal.com/api/rest/webhooks/simulator/).
SIMULATOR = "WEBHOOK_ID"
DEMO_FILE = "demo.json"  # in the data folder of a demo; describes the demo
DEMO_PAYPAL_FILE = "demo-paypal.json"  # while the demo runs: the URL of its simulated PayPal
LIVE_HOSTS = frozenset({"api.paypal.com", "api-m.paypal.com"})
# The settings that customers read in every mail. They have no defaults, so no one sends mail as another firm.
VENDOR = ("vendor_name", "vendor_url", "vendor_address", "product_name", "mail_from")
EXAMPLE_VENDOR = {  # in README.md; refused with PayPal's live API
    "vendor_name": "Example Ltd",
    "vendor_address": "1 Example Street, 12345 Exampletown",
    "product_name": "Example App",
}


class SettingsError(UsageError):
    """A setting is missing or invalid. The message names it and says what to do."""


class Settings(BaseSettings):
    """The settings of an operator. docs/operations.md explains them. Prices and billing cycles come from PayPal."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    data_dir: Path = Field(Path("var"), description="Folder for the database, keys, certificates and caught mail.")
    database_url: str = Field("", description="postgresql:// URL. Empty: a SQLite file in the data folder.")
    broker_url: str = Field("memory://", description="memory:// serves one process; amqp://… serves many.")
    master_key_file: Path | None = Field(
        None, description="File of the master key; keys/master.key in the data folder unless set."
    )

    smtp_url: str = Field("", description="Relay, smtp://host:port. Empty: mail stays queued.")
    smtp_connections: int = Field(10, ge=1, le=50, description="Connections kept open to the relay.")
    relay_log: Path | None = Field(
        None, description="Postfix's log; with it, mails in doubt are resolved automatically."
    )
    mail_from: str = Field("", description="Sender of all mails; replies go to support_email if set.")
    bounce_domain: str = Field("", description="Domain of the envelope senders; the domain of mail_from unless set.")
    operator_email: str = Field("", description="Receives alerts about problems and parked events. Empty: no alerts.")

    vendor_name: str = Field("", description="The vendor's name, as customers read it.")
    vendor_url: str = Field("", description="The vendor's website, shown in mails.")
    vendor_address: str = Field("", description="Postal address in the footer of mails.")
    vendor_colour: str = Field("#1d4e89", pattern=r"#[0-9a-fA-F]{6}", description="Colour of headings and links.")
    product_name: str = Field("", description="The product that customers subscribe to.")
    support_email: str = Field("", description="Contact for help with the product; mail_from unless set.")
    plans: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="Plans offered at sign-up, name=P-ID, separated by commas."
    )
    privacy_email: str = Field("", description="Contact for data-subject requests; support_email unless set.")
    inbound_maildir: Path | None = Field(
        None, description="Maildir of the contact address; if set, it is read every minute."
    )
    inbound_notice: Literal["command", "text"] = Field(
        "command",
        description="What the operator's mail about a message contains: the command that shows it, or its text.",
    )
    product_command: str = Field("", description="Command that exports or erases a customer in the product itself.")
    product_url: str = Field("", description="URL that receives the same request, instead of a command.")
    product_token: SecretStr = Field(SecretStr(""), description="Bearer token for product_url.")
    country: str = Field(
        "",
        pattern="^([A-Z]{2})?$",
        description="Two letters, such as DE: its law sets how long invoices are kept.",
    )
    erase_wait_hours: int = Field(72, ge=0, le=240, description="Hours in which an erasure can still be cancelled.")
    backup_dir: Path | None = Field(None, description="Folder for backups, outside the data folder.")
    backup_recipient: str = Field("", description="age recipient (age1…) that backups are encrypted for.")
    backup_days: int = Field(30, ge=1, description="Days that copies of the database are kept.")
    backup_keys_days: int = Field(
        7, ge=1, description="Days that copies of the keys are kept; the newest is always kept."
    )
    locale: str = Field("en_US", description="Format of dates and amounts.")

    paypal_base_url: str = Field("https://api-m.sandbox.paypal.com", description="PayPal's sandbox or live API.")
    paypal_client_id: str = Field("", description="REST app id. Empty: no look-ups in PayPal's API.")
    paypal_client_secret: SecretStr = Field(SecretStr(""), description="REST app secret.")
    paypal_webhook_id: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Ids of the webhooks whose signatures are accepted, separated by commas."
    )
    paypal_accept_simulator: bool = Field(
        False, description="Accept PayPal's simulator events. Never together with a webhook id."
    )
    paypal_trust_anchors: Path | None = Field(
        None, description="PEM bundle; with it, the certificate chain is checked too."
    )

    private_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Networks that never leave this machine, such as its container network, separated by commas.",
    )
    policy_effective: date = Field(date(2025, 5, 1), description="The day the privacy policy's first text took effect.")

    web_host: str = Field("127.0.0.1", description="Address the web role listens on.")
    web_port: int = Field(8000, ge=0, le=65535, description="Port the web role listens on; 0 picks a free one.")
    metrics_host: str = Field(
        "127.0.0.1", description="Address that serves metrics and health details. Empty: not served."
    )
    metrics_port: int = Field(9464, ge=0, le=65535, description="Port that serves them; 0 picks a free one.")
    reminder_days_yearly: int = Field(
        30, ge=1, le=90, description="Days from the reminder to the renewal, for cycles of a year or more."
    )
    reminder_days_monthly: int = Field(
        3, ge=1, le=28, description="Days from the reminder to the renewal, for cycles of a month or more."
    )
    public_url: str = Field("", description="Public address of the customer pages, for links in mails.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1", "::1"),
        description="Reverse proxies whose X-Forwarded-For is believed: addresses or networks, separated by commas.",
    )
    paypal_max_age_days: int = Field(
        30, ge=4, description="Webhooks whose transmission time is older are refused. PayPal retries for three days."
    )
    proxy_log: Path | None = Field(None, description="Access log of the web server in front, read by `policy check`.")
    dispute_pauses_access: bool = Field(
        False, description="Whether access_until ends when a buyer disputes a payment, until PayPal has decided."
    )
    paypal_max_ahead_days: int = Field(
        1, ge=1, le=36_500, description="Events that report something further ahead of their reception are parked."
    )
    health_limit_seconds: int = Field(
        300, ge=1, description="An event or mail that waits longer than this is a problem; /healthz then answers 503."
    )

    @field_validator("paypal_webhook_id", "private_networks", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("plans", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """Parse name=P-ID pairs. A name may contain commas: a part without `=P-` belongs to the next name."""
        if not isinstance(value, str):
            return value
        pairs = re.findall(r"\s*(.+?)\s*=\s*(P-[A-Z0-9]+)\s*(?:,|$)", value)
        if re.sub(r"\s*(.+?)\s*=\s*(P-[A-Z0-9]+)\s*(?:,|$)", "", value).strip():
            raise ValueError("must be name=P-ID pairs, separated by commas: Cloud (monthly)=P-5ML4271244454362WXNWU5NQ")
        return dict(pairs)

    @field_validator("public_url")
    @classmethod
    def _is_encrypted_or_local(cls, value: str) -> str:
        """Refuse http, except on this machine: sessions and links must be encrypted."""
        url = urlsplit(value)
        local = url.scheme == "http" and url.hostname in ("127.0.0.1", "localhost", "::1")
        if value and (not url.hostname or not (local or url.scheme == "https") or url.path.strip("/") or url.query):
            raise ValueError("must be https:// and a host without a path; http:// only for this machine")
        return value and f"{url.scheme}://{url.netloc}"

    @field_validator("vendor_url")
    @classmethod
    def _is_web_address(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in ("https", "http") or not urlsplit(value).hostname):
            raise ValueError("must be https:// and a host")
        return value

    @field_validator("locale")
    @classmethod
    def _is_known_locale(cls, value: str) -> str:
        from babel import Locale, UnknownLocaleError  # noqa: PLC0415 - slow to import, and few commands need it

        try:
            Locale.parse(value.replace("-", "_"))
        except (ValueError, UnknownLocaleError):
            raise ValueError("must be the name of a locale, such as en_US") from None
        return value

    @field_validator("private_networks", "trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for network in value:
                ip_network(network)
        except ValueError:
            raise ValueError(
                "must be addresses or networks such as 10.213.78.1 or 10.0.0.0/8, separated by commas"
            ) from None
        return value

    @field_validator("database_url")
    @classmethod
    def _with_driver(cls, value: str) -> str:
        """Use psycopg 3, the only driver that is installed, for `postgres://` and `postgresql://`."""
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
        # `load` reads .env: pydantic-settings would read it without a look at its owner.
        return init_settings, env_settings, _NamedFiles(settings_cls)

    @property
    def database(self) -> str:
        """The SQLAlchemy URL: `database_url`, or a SQLite file in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir / 'smt-billing.db'}"

    @property
    def master_key(self) -> Path:
        return self.master_key_file or self.data_dir / "keys" / "master.key"

    @property
    def certificates_dir(self) -> Path:
        """The folder of PayPal's signing certificates."""
        return self.data_dir / "certificates"

    @property
    def envelope_domain(self) -> str:
        return self.bounce_domain or self.mail_from.rpartition("@")[2]

    @property
    def pages_url(self) -> str:
        """The address of the customer pages, without a slash at the end. Raises SettingsError if it is not set."""
        self.require("public_url")
        return self.public_url

    @property
    def is_live(self) -> bool:
        """Whether PayPal's live API is configured, so that money and customers are real."""
        return (urlsplit(self.paypal_base_url).hostname or "").rstrip(".") in LIVE_HOSTS

    @property
    def has_paypal_credentials(self) -> bool:
        """Whether the credentials for PayPal's API are set."""
        return bool(self.paypal_client_id) and self.has_paypal_secret

    @property
    def has_paypal_secret(self) -> bool:
        return bool(self.paypal_client_secret.get_secret_value())

    def require(self, *names: str) -> None:
        """Raise SettingsError if any of these settings is empty. The message names all that are."""
        missing = [variable(name) for name in names if not _is_set(getattr(self, name))]
        if missing:
            raise SettingsError(
                f"set {', '.join(missing)} in the environment or in .env (or set {missing[0]}_FILE to the path of a file "
                "that contains the value)"
            )


class _NamedFiles(PydanticBaseSettingsSource):
    """Reads `SMT_X` from the file that `SMT_X_FILE` in the environment names. Raises SettingsError if it cannot be read."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return _read_named_file(field_name, os.environ), field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in Settings.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


def _read_named_file(name: str, variables: Mapping[str, str], where: str = "") -> str | None:
    """Return the content of the file that `SMT_X_FILE` names; None if it is not set. `where` says where it is set."""
    pointer = variable(name) + "_FILE"
    path = variables.get(pointer, "")
    # SMT_MASTER_KEY_FILE is a setting of that name: its value is a path, not a file to read a setting from.
    if not path or name + "_file" in Settings.model_fields:
        return None
    try:
        return _content_of(Path(path), is_secret=Settings.model_fields[name].annotation is SecretStr).rstrip("\n")
    except EnvFileError as error:
        raise SettingsError(f"{pointer}{where}: {error}") from error
    except OSError as error:
        raise SettingsError(f"{pointer}{where} names {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{pointer}{where} names {path}: not UTF-8 text") from None


def _content_of(path: Path, *, is_secret: bool) -> str:
    """Return the text of a named file. Raises EnvFileError if another account could have written it, or reads a secret."""
    file = read_protected(path)
    if file is None:
        raise EnvFileError(f"{path.absolute()} is not a file")
    text = file.content.decode()
    if (is_secret or _has_password(text)) and not file.is_private:
        raise EnvFileError(
            f"{file.path} contains a secret and is accessible to other accounts (mode {file.mode:04o}), so it is not read. "
            f"Run: chmod 600 {file.path}"
        )
    return text


def _values_in(file: EnvFile) -> dict[str, str]:
    """Return the values of the settings that the file sets and the environment does not."""
    in_environment = {name.upper() for name in os.environ}
    values: dict[str, str] = {}
    for name in Settings.model_fields:
        if in_environment & {variable(name), f"{variable(name)}_FILE"}:
            continue
        value = file.variables.get(variable(name))
        value = _read_named_file(name, file.variables, f" in {file.path}") if value is None else value
        if value is not None:
            values[name] = value
    return values


def env_file() -> EnvFile | None:
    """Return the `.env` file that the settings are read from; None if there is none.

    Raises SettingsError if it belongs to another account, or others can write to it, or read a secret in it.
    """
    try:
        file = read_env_file(ENV_FILE)
    except EnvFileError as error:
        raise SettingsError(str(error)) from error
    if file and not file.is_private and (secrets := list(_secrets(file.variables))):
        raise SettingsError(
            f"{file.path} contains {', '.join(secrets)} and is accessible to other accounts (mode {file.mode:04o}), so it "
            f"is not read. Run: chmod 600 {file.path}"
        )
    return file


def _secrets(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of the variables that contain a secret: a secret setting, or a URL with a password."""
    for name, field in Settings.model_fields.items():
        value = variables.get(variable(name), "")
        if value and (field.annotation is SecretStr or _has_password(value)):
            yield variable(name)


def _has_password(value: str) -> bool:
    try:
        return bool(urlsplit(value).password)
    except ValueError:  # not a URL
        return False


def variable(name: str) -> str:
    """Return the environment variable of a setting: `SMT_DATA_DIR` for `data_dir`."""
    return PREFIX + name.upper()


def load(*, _env_file: Path | None = ENV_FILE, **overrides: Any) -> Settings:
    """Read the settings. Raises SettingsError; its one line names each invalid setting. None: read no `.env` file."""
    file = env_file() if _env_file else None
    try:
        settings = Settings(**{**(_values_in(file) if file else {}), **overrides})
    except ValidationError as error:
        lines = [
            f"{variable(str(item['loc'][0]))}: {plain_sentence(item)}" for item in error.errors(include_input=False)
        ]
        raise SettingsError("; ".join(lines)) from None
    if settings.paypal_accept_simulator and settings.paypal_webhook_id:
        raise SettingsError(
            "SMT_PAYPAL_ACCEPT_SIMULATOR and SMT_PAYPAL_WEBHOOK_ID are both set. Anyone can let PayPal's simulator sign "
            "an event for any address, and such an event would change real subscriptions. Unset one of the two."
        )
    if settings.paypal_accept_simulator and settings.is_live:
        raise SettingsError(
            f"SMT_PAYPAL_ACCEPT_SIMULATOR is set, but SMT_PAYPAL_BASE_URL is PayPal's live API "
            f"({settings.paypal_base_url}). Anyone can send events of PayPal's simulator. Unset SMT_PAYPAL_ACCEPT_SIMULATOR"
        )
    if SIMULATOR in settings.paypal_webhook_id:
        raise SettingsError(
            f"SMT_PAYPAL_WEBHOOK_ID contains {SIMULATOR}, which is the id of PayPal's simulator, not of your webhook. "
            "To accept events of the simulator, set SMT_PAYPAL_ACCEPT_SIMULATOR=true instead."
        )
    return settings


def _is_set(value: object) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)
