"""The lock files: exact versions with hashes, no address to fetch them from, and what is installed is what they say."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RUNTIME, DEV = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"

_PINNED = re.compile(r"[a-z0-9-]+==[0-9][\w.!+]*( ; [^\\]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+")


@pytest.mark.parametrize("path", [RUNTIME, DEV], ids=lambda path: path.name)
def test_every_line_pins_a_version_and_its_hashes_and_nothing_else(path: Path) -> None:
    comment, _, pins = path.read_text("utf-8").partition("\n")
    assert comment.startswith("# ")
    assert _PINNED.sub("", pins) == ""
    assert "/" not in path.read_text("utf-8"), "an address or a folder: the lock must do with any index"


def test_the_developers_lock_is_the_other_one_and_more() -> None:
    runtime, dev = pins(RUNTIME), pins(DEV)
    assert {name: pin for name, pin in dev.items() if name in runtime} == runtime
    assert dev.keys() > runtime.keys()


@pytest.mark.parametrize(
    ("path", "asked"),
    [(RUNTIME, PROJECT["dependencies"]), (DEV, [*PROJECT["optional-dependencies"]["dev"], *PROJECT["dependencies"]])],
    ids=["runtime", "dev"],
)
def test_what_we_ask_for_is_locked_at_a_version_we_accept(path: Path, asked: list[str]) -> None:
    locked = pins(path)
    for requirement in map(Requirement, asked):
        assert version(locked[canonicalize_name(requirement.name)]) in requirement.specifier


def test_what_is_installed_is_what_is_locked() -> None:
    needed = {name: pin for name, pin in pins(DEV).items() if not pin.marker or pin.marker.evaluate()}
    differs = [name for name, pin in needed.items() if installed(name) != version(pin)]
    assert differs == [], "run make setup"


def test_the_sdk_is_the_one_paypal_published() -> None:
    """No package exists under the name that PayPal's own pages give, so whoever takes it would own what we install."""
    assert "paypal-checkout-serversdk==1.0.3" in PROJECT["dependencies"]
    assert [name for name in pins(DEV) if "paypal" in name] == ["paypal-checkout-serversdk", "paypalhttp"]


def pins(path: Path) -> dict[str, Requirement]:
    """Package -> its line."""
    lines = re.findall(r"^([a-z0-9-]+==.*) \\$", path.read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def version(pin: Requirement) -> str:
    return str(pin.specifier).removeprefix("==")


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
