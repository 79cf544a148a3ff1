"""`make audit`: are weaknesses known of what requirements.lock names? Asks PyPI's advisory database by pip-audit.

Writes {"at", "ok", "found", "reason"} to audit.json in SMT_DATA_DIR, or the file that is named: `ok` is true only if every
package could be asked about and none is known to be weak. Exit codes: 0 that, 1 weaknesses, 2 the database was not reached.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.child_environment import child_environment
from pipeline.clock import SystemClock, format_time
from pipeline.settings import load

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
ASK = ("-m", "pip_audit", "--requirement", str(LOCK), "--disable-pip", "--format", "json", "--progress-spinner", "off")
SECONDS = 300
WAY_OUT = (
    "HTTP_",
    "HTTPS_",
    "http_",
    "https_",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT",
    "REQUESTS_CA",
)  # proxy, certificates


def main(path: Path) -> int:
    """Ask, write what came of it, say it."""
    dependencies, trouble = ask()
    found = [weakness(package, each) for package in dependencies for each in package.get("vulns", ())]
    skipped = [package["name"] for package in dependencies if "skip_reason" in package]
    reason = trouble or _reason(len(dependencies), skipped, found)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    result = {"at": format_time(SystemClock().now()), "ok": not reason, "found": found, "reason": reason}
    path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(reason or f"no weakness is known of {len(dependencies)} packages")
    return 1 if found else 2 if reason else 0


def ask() -> tuple[list[dict[str, Any]], str]:
    """What pip-audit says of each package; and why it said nothing, if so."""
    environment = child_environment(*WAY_OUT)
    try:
        done = subprocess.run(
            [sys.executable, *ASK], capture_output=True, text=True, timeout=SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return [], f"the advisory database did not answer within {SECONDS} seconds; nothing was checked"
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return [], f"the advisory database was not reached; nothing was checked. pip-audit said: {said[:300]}"


def weakness(package: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """One known weakness of a package, as it is written down."""
    return {
        "package": package["name"],
        "version": package["version"],
        "id": known["id"],
        "fixed_in": known.get("fix_versions", []),
    }


def _reason(asked: int, skipped: list[str], found: list[dict[str, Any]]) -> str:
    """Why not all is well; empty if it is. pip-audit itself calls it well when it could ask about nothing."""
    if found:
        named = ", ".join(f"{each['package']} {each['version']} ({each['id']})" for each in found)
        return f"known weaknesses: {named}; update with `make lock`"
    if not asked:
        return f"{LOCK.name} names no package; nothing was checked"
    if len(skipped) == asked:
        return f"the advisory database knows none of {asked} packages: it was not reached; nothing was checked"
    return f"the advisory database does not know {', '.join(skipped)}; they were not checked" if skipped else ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else load().data_dir / "audit.json"))
