"""What this machine can do, and whether the tools are there."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from tests.support.subprocesses import surroundings

POSTGRES = Path("/usr/lib/postgresql")
FOLDERS = ("/usr/sbin", "/sbin", "/usr/lib/rabbitmq/bin")  # not on everybody's PATH
# Debian's and Ubuntu's package of each program.
PACKAGES = {
    "wrk": "wrk",
    "smtp-source": "postfix",
    "smtp-sink": "postfix",
    "postfix": "postfix",
    "rabbitmq-server": "rabbitmq-server",
    "epmd": "rabbitmq-server",
    "postgres": "postgresql",
    "pg_test_fsync": "postgresql",
    "openssl": "openssl",
}


def find(program: str) -> str | None:
    """Where a program is, also where PATH does not look."""
    bins = sorted((str(path) for path in POSTGRES.glob("*/bin")), key=_version, reverse=True)
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *bins, *FOLDERS]))


def missing(programs: Iterable[str] = PACKAGES) -> list[str]:
    """The packages to install for the programs that are not there."""
    return sorted({PACKAGES[program] for program in programs if find(program) is None})


def fsyncs(folder: Path) -> float:
    """How often a second a page can be made durable in this folder, by pg_test_fsync's fdatasync of 8 kB."""
    command = [find("pg_test_fsync") or "pg_test_fsync", "--secs-per-test=1", "--filename", str(folder / "fsync.out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings(None)) as test:
        for line in test.stdout or ():
            if found := re.search(r"\sfdatasync\s+([\d.]+) ops/sec", line):
                test.terminate()  # the other methods, and other sizes, are of no interest here
                return float(found[1])
    return 0.0


def verifications() -> float:
    """RSA-2048 verifications a second on one core, by OpenSSL: what no door can pass."""
    command = [find("openssl") or "openssl", "speed", "-seconds", "1", "rsa2048"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(told.split()[-1])


def describe() -> dict[str, str | int]:
    """The machine and the versions, for the foot of the table."""
    return {
        "processors": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlalchemy": version("sqlalchemy"),
        "kombu": version("kombu"),
        "uvicorn": version("uvicorn"),
    }


def _processor() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    return found[1] if found else platform.machine()


def _version(path: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", path)]
