"""The wheel contains every handler, template, page and migration, and no other file."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "handlers", "email_templates")
pytestmark = pytest.mark.slow
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the files that the wheel is built from. Building leaves files behind, so it uses a copy."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=IGNORED)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    pip("wheel", "--no-build-isolation", "--wheel-dir", checkout / "wheel", checkout)
    return next((checkout / "wheel").glob("*.whl"))


def test_wheel_contains_exactly_the_package_files(checkout: Path, wheel: Path) -> None:
    files = {
        str(path.relative_to(checkout)) for name in PACKAGES for path in (checkout / name).rglob("*") if path.is_file()
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert sorted(packed) == sorted(files)


def test_installed_program_finds_templates_and_handlers(wheel: Path, tmp_path: Path) -> None:
    pip("install", "--no-compile", "--target", tmp_path, wheel)
    code = f"""if True:
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import handlers, pipeline.rendering.templates
        print(handlers.__file__, pipeline.rendering.templates.default_folder() / "receipt" / "body.html", sep="\\n")
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    found = [Path(line) for line in done.stdout.splitlines()]
    assert all(path.is_relative_to(tmp_path) and path.exists() for path in found), found


def pip(command: str, *words: str | Path) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    subprocess.run([sys.executable, "-m", "pip", command, *quiet, *words], check=True)
