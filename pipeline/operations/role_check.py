"""Check a role's health from outside its process: the web role over HTTP, the others by their heartbeat.

It needs no database: outages come from the heartbeats, unfinished work from the scheduler's last check.
"""

import http.client
from datetime import datetime
from ipaddress import ip_address

from pipeline.error_texts import describe
from pipeline.operations import problem_file
from pipeline.operations.heartbeat import ALIVE_SECONDS, is_alive
from pipeline.operations.outages import observe
from pipeline.settings import Settings

ANSWER_SECONDS = 3.0  # a web role that takes longer to answer /healthz is unhealthy
# Addresses that mean "all addresses of this machine". Nothing can connect to them, so loopback is used instead.
WILDCARD_ADDRESSES = {str(ip_address(0)): "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def problem(settings: Settings, role: str, now: datetime) -> str:
    """Return what is wrong with a role that should run on this machine, or "" if nothing is."""
    if role == "web":
        return _web_problem(local_host(settings), settings.web_port)
    return "" if is_alive(settings.data_dir, role, now) else f"no heartbeat for {ALIVE_SECONDS} seconds"


def notes(settings: Settings, now: datetime) -> list[str]:
    """Return a sentence for each outage and each kind of unfinished work that is over its limit."""
    outages = observe(settings.data_dir).outages(now, (), now)
    lasting = [each.sentence for each in outages if each.seconds(now) > each.limit_seconds]
    return lasting + [problem.text for problem in problem_file.read(settings.data_dir, now)]


def local_host(settings: Settings) -> str:
    """Return the address at which this machine reaches its own web role."""
    return WILDCARD_ADDRESSES.get(settings.web_host, settings.web_host)


def _web_problem(host: str, port: int) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        text = answer.read(10_000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from http://{host}:{port}/healthz ({describe(error)})"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"{answer.status} {text}"
