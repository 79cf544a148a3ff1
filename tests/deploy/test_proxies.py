"""The samples of TLS proxies pass on the public paths, and nothing else."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROXY = ROOT / "deploy" / "proxy"
BELOW = ("signup", "account", "unsubscribe", "privacy", "pages")
PUBLIC = ("/webhooks/paypal", "/api/signup", "/privacy.txt", *(f"/{name}" for name in BELOW))
PRIVATE = (
    "/",
    "/metrics",
    "/healthz",
    "/health",
    "/webhooks",
    "/webhooks/other",
    "/signups",
    "/accounts",
    "/api/other",
)


def caddy_passes(path: str) -> bool:
    listed = re.search(r"@public path (.*)", (PROXY / "Caddyfile").read_text())
    assert listed
    return any(fnmatchcase(path, each) for each in listed[1].split())


def nginx_passes(path: str) -> bool:
    pattern = re.search(r"location ~ (\S+) \{", (PROXY / "nginx.conf").read_text())
    assert pattern
    return re.search(pattern[1], path) is not None


@pytest.mark.parametrize("passes", [caddy_passes, nginx_passes])
def test_proxy_passes_on_the_public_paths_only(passes: object) -> None:
    assert callable(passes)
    assert [path for path in PUBLIC if not passes(path)] == []
    assert [f"/{name}/x" for name in BELOW if not passes(f"/{name}/x")] == []
    assert [path for path in PRIVATE if passes(path)] == []


def test_operations_list_the_same_paths() -> None:
    line = re.search(r"^- Pass (.*) to the web role", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert line
    assert sorted(re.findall(r"`([^`]+)`", line[1])) == sorted(PUBLIC)


def test_proxies_keep_no_access_log_and_set_the_visitors_address() -> None:
    nginx = (PROXY / "nginx.conf").read_text()
    assert "access_log off;" in nginx
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in nginx
    assert "\n\tlog" not in (PROXY / "Caddyfile").read_text()
