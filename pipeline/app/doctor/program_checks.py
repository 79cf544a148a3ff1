"""Check the program itself: the Python version and the mail templates."""

import sys
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.rendering.templates import RenderError
from pipeline.settings import SettingsError

# CVE-2024-6923: the first release of each Python version whose `email` package refuses line ends in headers.
FIXED = "3.11.10, 3.12.5 or 3.13.0"


def check_interpreter(_: Container) -> CheckResult:
    """Check that this Python is not affected by CVE-2024-6923."""
    version = ".".join(map(str, sys.version_info[:3]))
    if injection_probe():
        return CheckResult(
            "interpreter",
            "warn",
            f"Python {version} lets an encoded word add a mail header (CVE-2024-6923)",
            f"upgrade to {FIXED} or later; this program's mails are not affected, because it writes them differently",
        )
    return CheckResult("interpreter", "ok", f"Python {version} passes the header-injection probe")


def injection_probe() -> bool:
    """Return whether this Python's `email` package lets an encoded word add a header (CVE-2024-6923).

    This program does not write mails with that package, but other programs on the machine may do so.
    """
    message = EmailMessage()
    try:
        message["Subject"] = "=?utf-8?q?a=0D=0ABcc=3A_somebody=40example=2Ecom?="
        return b"\nBcc:" in message.as_bytes(policy=SMTP)
    except (MessageError, ValueError):
        return False


def check_templates(container: Container) -> CheckResult:
    """Check that every mail kind renders with its example."""
    try:
        templates = container.templates
        for kind in templates.kinds:
            templates.render(kind, templates.example(kind))
    except SettingsError:
        return CheckResult("templates", "warn", "not checked, because settings of the vendor are missing")
    except RenderError as error:
        return CheckResult(
            "templates", "fail", str(error), "fix the template, then check it: smt-billing mail preview KIND"
        )
    if not templates.kinds:
        return CheckResult("templates", "fail", "email_templates contains no mails", "install the complete package")
    return CheckResult("templates", "ok", f"{len(templates.kinds)} mail kinds, all render their examples")
