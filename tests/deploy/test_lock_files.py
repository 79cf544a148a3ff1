"""The lock files have exact versions with hashes and no index URL, and the installed packages match them."""

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
def test_every_line_has_only_version_and_hashes(path: Path) -> None:
    comment, _, pins = path.read_text("utf-8").partition("\n")
    assert comment.startswith("# ")
    assert _PINNED.sub("", pins) == ""
    assert "/" not in path.read_text("utf-8"), (
        "the lock file contains a URL or path, but it must work with any package index"
    )


def test_developer_lock_extends_runtime_lock() -> None:
    runtime, dev = pins(RUNTIME), pins(DEV)
    assert {name: pin for name, pin in dev.items() if name in runtime} == runtime
    assert dev.keys() > runtime.keys()


@pytest.mark.parametrize(
    ("path", "requirements"),
    [(RUNTIME, PROJECT["dependencies"]), (DEV, [*PROJECT["optional-dependencies"]["dev"], *PROJECT["dependencies"]])],
    ids=["runtime", "dev"],
)
def test_locked_version_satisfies_requirement(path: Path, requirements: list[str]) -> None:
    locked = pins(path)
    for requirement in map(Requirement, requirements):
        assert version(locked[canonicalize_name(requirement.name)]) in requirement.specifier


def test_installed_packages_match_lock() -> None:
    needed = {name: pin for name, pin in pins(DEV).items() if not pin.marker or pin.marker.evaluate()}
    differs = [name for name, pin in needed.items() if installed(name) != version(pin)]
    assert differs == [], "installed versions differ from the lock: run `make setup`"


def test_sdk_is_published_by_paypal() -> None:
    """PayPal's pages name a package that does not exist, so an attacker could register that name."""
    assert "paypal-checkout-serversdk==1.0.3" in PROJECT["dependencies"]
    assert [name for name in pins(DEV) if "paypal" in name] == ["paypal-checkout-serversdk", "paypalhttp"]


def pins(path: Path) -> dict[str, Requirement]:
    """Return the requirement of each package in the lock file, by package name."""
    lines = re.findall(r"^([a-z0-9-]+==.*) \\$", path.read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def version(pin: Requirement) -> str:
    return str(pin.specifier).removeprefix("==")


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
