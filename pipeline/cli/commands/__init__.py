"""The table of all commands: name, module and one-line help. There is one file per command or group.

The docstring of a single command continues its help.
"""

from pipeline.cli.lazy_group import LazyCommand

_HERE = "pipeline.cli.commands"

COMMANDS = {
    "demo": LazyCommand(
        f"{_HERE}.demo:demo",
        "Play a vendor's first months: a simulated PayPal posts signed webhooks to the real receiver, and the real mailer "
        "sends every mail to a mailbox with a web page.",
    ),
    "run": LazyCommand(f"{_HERE}.run:run", "Run all roles in this process until Ctrl-C or SIGTERM."),
    "web": LazyCommand(
        f"{_HERE}.run:web",
        "Receive PayPal's webhooks at http://SMT_WEB_HOST:SMT_WEB_PORT/webhooks/paypal, and serve the customer pages, "
        "/healthz, and metrics on a port of their own.",
    ),
    "worker": LazyCommand(f"{_HERE}.run:worker", "Process events, and look up missing data in PayPal's API."),
    "mailer": LazyCommand(f"{_HERE}.run:mailer", "Send queued mails through SMT_SMTP_URL."),
    "scheduler": LazyCommand(
        f"{_HERE}.run:scheduler",
        "Run jobs at intervals: renewal reminders, claims of stopped mailers, mails in doubt, alerts, erasures, retention.",
    ),
    "health": LazyCommand(f"{_HERE}.health:health", "Check a role's health on this machine."),
    "inbound": LazyCommand(
        f"{_HERE}.inbound:app",
        "File inbound mail, assign it to the customer who sent it, and acknowledge it once; list, show and answer it.",
    ),
    "simulate": LazyCommand(
        f"{_HERE}.simulate:simulate",
        "Post a simulated customer's events to a running receiver. They are signed as PayPal signs, with a local key.",
    ),
    "doctor": LazyCommand(
        f"{_HERE}.doctor:doctor",
        "Check settings, files, keys, database, broker, relay, PayPal, certificates, clock, interpreter and templates.",
    ),
    "db": LazyCommand(f"{_HERE}.db:app", "Create and upgrade the database tables."),
    "events": LazyCommand(f"{_HERE}.events:app", "List, inspect, import and replay PayPal's events."),
    "parked": LazyCommand(f"{_HERE}.events:parked", "Resolve events that need a manual decision."),
    "lookups": LazyCommand(
        f"{_HERE}.lookups:app", "List the questions to PayPal that have no answer yet, and retry them."
    ),
    "mail": LazyCommand(f"{_HERE}.mail:app", "List, inspect, preview and test mails; resolve mails in doubt."),
    "subscriptions": LazyCommand(
        f"{_HERE}.subscriptions:app",
        "List and inspect subscriptions, their payments and paid-through dates; cancel, suspend or change one at PayPal.",
    ),
    "payments": LazyCommand(f"{_HERE}.payments:app", "List and inspect payments, and refund them through PayPal."),
    "disputes": LazyCommand(f"{_HERE}.disputes:app", "List what buyers dispute, and until when you must answer."),
    "customers": LazyCommand(f"{_HERE}.customers:app", "Find customers and handle data-subject requests."),
    "paypal": LazyCommand(
        f"{_HERE}.paypal:app", "Prepare the account at PayPal: webhook and plans. Verify PayPal's signatures."
    ),
    "reconcile": LazyCommand(
        f"{_HERE}.reconcile:app",
        "Ask PayPal what was missed: webhook events, subscriptions and money; list and close the differences that stay.",
    ),
    "keys": LazyCommand(f"{_HERE}.keys:app", "Replace the master key that protects personal data."),
    "backup": LazyCommand(f"{_HERE}.backup:app", "Create and restore encrypted backups."),
    "retention": LazyCommand(f"{_HERE}.retention:app", "Show and apply retention periods."),
    "policy": LazyCommand(
        f"{_HERE}.policy:app", "Verify the privacy policy clause by clause, and manage its texts and changes."
    ),
}
