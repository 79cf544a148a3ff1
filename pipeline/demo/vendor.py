"""The pretend vendor of the demo. It replaces settings that are missing, in a demo's data folder only."""

from pipeline.settings import DEMO_FILE, EXAMPLE_VENDOR, Settings

DEMO_VENDOR = {
    "vendor_name": "SMT Constructions",
    "vendor_url": "https://smtconstructions.example.com",
    "vendor_address": EXAMPLE_VENDOR["vendor_address"],
    "product_name": "SMT-CRM",
    "mail_from": "billing@example.com",
    "public_url": "http://127.0.0.1:8025",
    "country": "DE",
}


def with_demo_vendor(settings: Settings) -> Settings:
    """Return the settings, with the demo's vendor where the operator has set none."""
    missing = {name: value for name, value in DEMO_VENDOR.items() if not getattr(settings, name)}
    return settings.model_copy(update=missing)


def in_demo_folder(settings: Settings) -> bool:
    """Return whether the data folder contains a demo, and so no real customers."""
    return not settings.is_live and (settings.data_dir / DEMO_FILE).exists()
