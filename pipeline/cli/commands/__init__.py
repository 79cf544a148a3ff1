"""The commands, one file for each group. This table is the only place for the name and the one-line help of each.

The docstring of a single command is the rest of its help.
"""

from pipeline.cli.lazy_group import LazyCommand

_HERE = "pipeline.cli.commands"

COMMANDS = {
    "demo": LazyCommand(
        f"{_HERE}.demo:demo",
        "Play a vendor's first months: a pretend PayPal posts signed webhooks to the real receiver, and every mail goes "
        "through the real mailer into a catcher with a web page.",
    ),
    "run": LazyCommand(f"{_HERE}.run:run", "Run all roles in this process, until Ctrl-C or SIGTERM."),
    "web": LazyCommand(
        f"{_HERE}.run:web",
        "Receive PayPal's webhooks at http://SMT_WEB_HOST:SMT_WEB_PORT/webhooks/paypal; also /healthz and /metrics.",
    ),
    "worker": LazyCommand(f"{_HERE}.run:worker", "Handle events, and ask PayPal for what they lack."),
    "mailer": LazyCommand(f"{_HERE}.run:mailer", "Send the queued mails through SMT_SMTP_URL."),
    "scheduler": LazyCommand(
        f"{_HERE}.run:scheduler",
        "Run the due jobs: renewal reminders, mails of dead mailers and in doubt, parked events, erasures, retention.",
    ),
    "health": LazyCommand(f"{_HERE}.health:health", "Check whether a role runs well on this machine."),
    "inbound": LazyCommand(
        f"{_HERE}.inbound:inbound", "File mail from customers with the customer who wrote it, and acknowledge it once."
    ),
    "simulate": LazyCommand(
        f"{_HERE}.simulate:simulate",
        "Post a pretend customer's events to a running receiver, signed as PayPal signs, but with a key of our own.",
    ),
    "doctor": LazyCommand(
        f"{_HERE}.doctor:doctor",
        "Check settings, files, keys, database, broker, relay, PayPal, certificates, clock, interpreter and templates.",
    ),
    "db": LazyCommand(f"{_HERE}.db:app", "The database's tables."),
    "events": LazyCommand(f"{_HERE}.events:app", "The events that PayPal sent, and what became of them."),
    "parked": LazyCommand(f"{_HERE}.events:parked", "Events that need a manual decision."),
    "mail": LazyCommand(f"{_HERE}.mail:app", "The mails in the outbox, and what became of them."),
    "subscriptions": LazyCommand(f"{_HERE}.subscriptions:app", "Subscriptions, their payments and paid-through dates."),
    "customers": LazyCommand(f"{_HERE}.customers:app", "Customers: who they are, and their rights."),
    "paypal": LazyCommand(f"{_HERE}.paypal:app", "PayPal's signatures."),
    "keys": LazyCommand(f"{_HERE}.keys:app", "The keys that encrypt personal data."),
    "backup": LazyCommand(f"{_HERE}.backup:app", "Encrypted copies of everything a restore needs."),
    "retention": LazyCommand(f"{_HERE}.retention:app", "How long each kind of data is kept."),
    "policy": LazyCommand(
        f"{_HERE}.policy:app", "The privacy policy: checked clause by clause, its texts, and changes to it."
    ),
}
