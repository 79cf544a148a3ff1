"""The vendor of the tests: the settings that have no defaults, because customers read them."""

from pipeline.settings import variable

VENDOR = {
    "vendor_name": "SMT Constructions",
    "vendor_url": "https://smtconstructions.example.com",
    "vendor_address": "1 Mill Lane, 12345 Sampletown",
    "product_name": "SMT-CRM",
    "mail_from": "billing@example.com",
    "public_url": "http://127.0.0.1:8000",
}
# What a role needs to start. A country changes retention periods, so most tests set none.
STARTABLE = {**VENDOR, "country": "DE"}
ENVIRONMENT = {variable(name): value for name, value in STARTABLE.items()}
