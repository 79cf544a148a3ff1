"""What the peers are told: where their servers are, and whose signature counts. All by environment variables."""

import os

DATABASE_URL = os.environ.get("PEER_DATABASE_URL", "")
BROKER_URL = os.environ.get("PEER_BROKER_URL", "")
SMTP_PORT = int(os.environ.get("PEER_SMTP_PORT", "25"))
CERTIFICATE = os.environ.get("PEER_CERTIFICATE", "")  # PayPal's certificate, a PEM file
WEBHOOK_ID = os.environ.get("PEER_WEBHOOK_ID", "")
SENDS_MAIL = os.environ.get("PEER_SENDS_MAIL", "") == "1"
