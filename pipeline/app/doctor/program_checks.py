"""Check the program itself: its Python and its mail templates."""

import sys
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.rendering.templates import RenderError
from pipeline.settings import SettingsError

# CVE-2024-6923: the first release of each line whose `email` refuses line ends in headers.
FIXED = "3.11.10, 3.12.5 or 3.13.0"


def check_interpreter(_: Container) -> CheckResult:
    """Check that this Python is free of CVE-2024-6923."""
    version = ".".join(map(str, sys.version_info[:3]))
    if injection_probe():
        return CheckResult(
            "interpreter",
            "warn",
            f"Python {version} lets an encoded word add a mail header (CVE-2024-6923)",
            f"our mails are written without its email package and proved; upgrade to {FIXED} or later all the same",
        )
    return CheckResult("interpreter", "ok", f"Python {version} passes the header-injection probe")


def injection_probe() -> bool:
    """Return whether this interpreter's `email` package lets an encoded word add a header (CVE-2024-6923).

    Our mails are not written with it; other programs on this interpreter may use it.
    """
    message = EmailMessage()
    try:
        message["Subject"] = "=?utf-8?q?a=0D=0ABcc=3A_somebody=40example=2Ecom?="
        return b"\nBcc:" in message.as_bytes(policy=SMTP)
    except (MessageError, ValueError):
        return False


def check_templates(container: Container) -> CheckResult:
    """Check that each mail renders its example."""
    try:
        templates = container.templates
        for kind in templates.kinds:
            templates.render(kind, templates.example(kind))
    except (RenderError, SettingsError) as error:
        return CheckResult(
            "templates", "fail", str(error), "mend the template, then see: smt-billing mail preview KIND"
        )
    if not templates.kinds:
        return CheckResult("templates", "fail", "no mails found in email_templates", "install the package whole")
    return CheckResult("templates", "ok", f"{len(templates.kinds)} mails, each renders its example")
