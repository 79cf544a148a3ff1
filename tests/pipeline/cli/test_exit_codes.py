"""Exit codes: an operator error is one line with exit code 1 or 2; an internal error keeps its traceback."""

import pytest

from pipeline.broker import BrokerUnavailableError
from pipeline.cli.exit_codes import exit_on_error
from pipeline.crypto.keyring import DecryptionError
from pipeline.crypto.master_key import MasterKeyError
from pipeline.customers.accounts import CustomerNotFoundError, InvalidFieldError
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.email_address import InvalidEnvelopeError
from pipeline.errors import OperatorError, UsageError
from pipeline.network.smtp_url import SmtpConfigError
from pipeline.operations.backup.store import BackupError
from pipeline.paypal.errors import MalformedDeliveryError, PaypalRejectedError, PaypalUnavailableError
from pipeline.policy.versions import PolicyRejectedError
from pipeline.privacy.erasure.workflow import ErasureTooLateError
from pipeline.privacy.requests import ErasureInProgressError, RequestNotFoundError
from pipeline.rendering.templates import RenderError
from pipeline.settings import SettingsError

USAGE_ERRORS = [
    UsageError,
    SettingsError,
    MasterKeyError,
    CustomerNotFoundError,
    SmtpConfigError,
    InvalidEnvelopeError,
    MalformedDeliveryError,
    BackupError,
    RequestNotFoundError,
    ErasureInProgressError,
    PolicyRejectedError,
]
PROBLEMS = [
    OperatorError,
    DatabaseUnavailableError,
    BrokerUnavailableError,
    DecryptionError,
    RenderError,
    PaypalUnavailableError,
    ErasureTooLateError,
]
ERRORS = [
    *((kind("what happened"), 2) for kind in USAGE_ERRORS),
    *((kind("what happened"), 1) for kind in PROBLEMS),
    (InvalidFieldError("name", "Please give your name."), 2),
    (PaypalRejectedError(401, "invalid_client", "abc"), 1),
]


def exit_of(error: Exception, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended, exit_on_error("smt-billing"):
        raise error
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_operator_error_is_one_line(error: OperatorError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(error, capsys) == (code, f"smt-billing: {error}\n")


def test_file_error_names_file(capsys: pytest.CaptureFixture[str]) -> None:
    error = FileNotFoundError(2, "No such file or directory", "/nowhere.pem")
    assert exit_of(error, capsys) == (1, "smt-billing: /nowhere.pem: No such file or directory\n")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("a bug"), KeyError("x")])
def test_internal_error_keeps_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), exit_on_error("smt-billing"):
        raise error
