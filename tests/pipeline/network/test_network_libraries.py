"""Only the packages listed here may open network connections; every other module gets a connection as an argument.

`egress.install_guard` enforces the allowed hosts at run time. This test keeps the code that can connect small.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# library that can open a connection -> the packages of `pipeline` that use it for that
ALLOWED = {
    "socket": {"demo", "network", "paypal", "policy", "simulator"},
    "ssl": {"broker", "error_texts", "paypal", "policy"},
    "http.client": {"customers", "error_texts", "operations", "paypal", "simulator"},
    "urllib.request": {"customers"},
    "requests": {"paypal"},
    "asyncio.open_connection": set[str](),
    "asyncio.open_unix_connection": set[str](),
    **{name: set[str]() for name in ("smtplib", "ftplib", "imaplib", "poplib", "xmlrpc.client")},
    "urllib3": {"paypal"},
    **{name: set[str]() for name in ("httpx", "aiohttp")},
    # Another program could open a connection, too.
    "subprocess": {"customers", "error_texts", "operations", "policy"},
    **{
        name: set[str]()
        for name in ("os.system", "os.popen", "os.execv", "os.execvp", "os.posix_spawn", "multiprocessing")
    },
    **{name: set[str]() for name in ("asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell")},
}


def network_libraries(source: str) -> set[str]:
    """Return the libraries in ALLOWED that this source uses."""
    return {name for node in ast.walk(ast.parse(source)) for name in names_in(node) if name in ALLOWED}


def names_in(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [ast.unparse(node)] if isinstance(node, ast.Attribute) else []


def uses() -> set[tuple[str, str]]:
    """Return (library, package) for each use in the program; the package of a handler is `handlers`."""
    sources = [path for folder in ("pipeline", "handlers") for path in sorted((ROOT / folder).rglob("*.py"))]
    return {(library, package_of(path)) for path in sources for library in network_libraries(path.read_text("utf-8"))}


def package_of(path: Path) -> str:
    top, *rest = path.relative_to(ROOT).with_suffix("").parts
    return rest[0] if top == "pipeline" else top


def test_only_listed_packages_can_open_connections() -> None:
    assert uses() == {(library, package) for library, packages in ALLOWED.items() for package in packages}


@pytest.mark.parametrize(
    ("source", "library"),
    [
        ("import socket", "socket"),
        ("import os\nos.system('curl x')", "os.system"),
        ("from subprocess import run", "subprocess"),
        ("from http.client import HTTPSConnection", "http.client"),
        ("async def go():\n    await asyncio.open_connection('x', 1)", "asyncio.open_connection"),
    ],
)
def test_network_library_is_detected(source: str, library: str) -> None:
    assert network_libraries(source) == {library}
