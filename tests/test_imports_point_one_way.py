"""Imports point one way: the tables below say which module may know which. They are the map of the program.

A new module gets a row here. If an arrow you need is missing, the cure is usually to hand the thing over as an
argument (the worker is *given* the handlers), and only then a new word in a row.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Every module may import these; they import nothing of ours but each other.
GROUND = ("settings", "clock", "files", "money", "batcher", "keys", "database", "rows", "tables")

# module -> what of ours it may import beside the ground. A folder is one module, and may import itself.
MAY_IMPORT = {
    # in
    "ingress": "inbox facts broker paypal",
    "facts": "redact resources mentions",
    "redact": "",
    "resources": "",
    "mentions": "resources",
    "inbox": "facts event",
    "broker": "",
    "worker": "inbox reads event books subscription broker",
    "sweep": "worker inbox",
    "event": "",
    "reads": "inbox event facts paypal",
    "paypal": "egress",
    # state: never mails, never calls out
    "handlers": "event books subscription payment notices",
    "books": "event register outbox reads",
    "subscription": "event register books access",
    "payment": "event register books subscription",
    "access": "",
    "register": "",
    # out
    "notices": "event register books subscription outbox",
    "letter": "message",
    "product": "route",
    "inbound": "accounts letter outbox privacy",
    "purposes": "",
    "outbox": "purposes",
    "accounts": "outbox register message",
    "addressee": "accounts outbox purposes",
    "mailer": "addressee outbox purposes render message proof smtp evidence",
    "evidence": "outbox",
    "render": "message",
    "message": "proof",
    "proof": "",
    "smtp": "message proof route wire",
    "wire": "",
    "route": "",
    # people
    "sign_up": "accounts privacy",
    # beside the river
    "scheduler": "accounts outbox reads notices subscription register",
    "alive": "",
    "health": "inbox outbox",
    "privacy": "accounts egress letter message outbox permissions product purposes redact register route",
    "rotation": "",
    "backup": "privacy migrations",
    "web": "accounts health ingress message paypal privacy product render sign_up",
    "egress": "route",
    "permissions": "",
    "migrations": "",
    "simulator": "",
    # the command line: wires all of it
    "commands": "* simulator",
    "__main__": "* commands handlers",
}
# What `*` stands for: everything on and beside the river.
RIVER = [name for name in MAY_IMPORT if name not in ("handlers", "simulator", "commands", "__main__")]

# library -> the only modules that may import it, whatever for
ONLY_IN = {
    "kombu": "broker",
    "amqp": "broker",
    "aiosmtplib": "smtp",
    "paypalcheckoutsdk": "paypal",
    "paypalhttp": "paypal",
    "requests": "paypal",
    "jinja2": "render web privacy",
    "css_inline": "render",
    "pydantic": "settings",
    "pydantic_settings": "settings",
    "psycopg": "database",
    "pyrage": "backup",
    "typer": "commands __main__",
    "rich": "commands __main__",
}

# Names that say nothing of what is inside, so everything ends up inside. A thing is named after its noun.
BUCKETS = {"util", "utils", "helper", "helpers", "common", "misc", "core", "lib", "base", "manager", "managers"}
BUCKET_CLASSES = ("Manager", "Service", "Factory", "Processor", "Helper", "Util", "Utils")


def sources() -> Iterator[Path]:
    """Every module of the program."""
    for package in ("pipeline", "handlers"):
        yield from sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """`pipeline/paypal/client.py` is in `paypal`, `handlers/x.py` in `handlers`, `pipeline/__init__.py` in ``."""
    package, *rest = path.relative_to(ROOT).with_suffix("").parts
    return "handlers" if package == "handlers" else rest[0].removesuffix("__init__")


def imports(source: str, *, typing: bool = True) -> set[str]:
    """The dotted names that a source imports; without `typing`, none that only the type checker sees."""
    found: set[str] = set()
    for node in walk(ast.parse(source), typing=typing):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def walk(node: ast.AST, *, typing: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if typing or not guarded:
            yield child
            yield from walk(child, typing=typing)


def wrong_arrows(name: str, source: str) -> list[str]:
    """What of ours this source imports and may not."""
    row = MAY_IMPORT.get(name, "").replace("*", " ".join(RIVER))
    allowed = {name, *GROUND, *row.split()}
    return [imported for imported in sorted(imports(source, typing=False)) if ours(imported) not in {None, *allowed}]


def ours(imported: str) -> str | None:
    """Which module of ours is imported: None for libraries, `?` where it can't be told."""
    first, _, rest = imported.partition(".")
    if first in ("pipeline", "handlers"):
        return rest.partition(".")[0] if first == "pipeline" else "handlers"
    return {"": "?", "tests": "tests", "benchmarks": "benchmarks", "email_templates": "email_templates"}.get(first)


def wrong_libraries(name: str, source: str) -> list[str]:
    """Libraries this source imports and may not."""
    firsts = {imported.partition(".")[0] for imported in imports(source)}
    return [first for first in sorted(firsts) if first in ONLY_IN and name not in ONLY_IN[first].split()]


def every(judge: Callable[[str, str], list[str]]) -> list[str]:
    """What a judge of name and source says of every module, each with its path."""
    judged = [(path, judge(name_of(path), path.read_text("utf-8"))) for path in sources()]
    return [f"{path.relative_to(ROOT)}: {word}" for path, words in judged for word in words]


def test_every_module_has_a_row_and_every_row_a_module() -> None:
    assert sorted({name_of(path) for path in sources()} - {""}) == sorted([*GROUND, *MAY_IMPORT])


def test_a_module_imports_only_what_its_row_allows() -> None:
    assert every(wrong_arrows) == []


def test_a_row_allows_nothing_that_its_module_does_not_import() -> None:
    drawn: dict[str, set[str | None]] = defaultdict(set)
    for path in sources():
        drawn[name_of(path)] |= {ours(imported) for imported in imports(path.read_text("utf-8"), typing=False)}
    idle = {name: set(row.split()) - {"*"} - drawn[name] for name, row in MAY_IMPORT.items()}
    assert {name: words for name, words in idle.items() if words} == {}


def test_a_library_is_imported_where_it_belongs_only() -> None:
    assert every(wrong_libraries) == []


def test_nobody_but_the_command_line_imports_a_handler_not_even_a_handler() -> None:
    assert [line for line in every(handlers_imported) if not line.startswith("pipeline/__main__.py:")] == []


def test_the_map_imports_nothing() -> None:
    assert imports((ROOT / "pipeline" / "__init__.py").read_text("utf-8")) == set()


def test_the_rows_make_no_circle() -> None:
    left = {name: set(row.replace("*", " ".join(RIVER)).split()) for name, row in MAY_IMPORT.items()}
    while left:
        done = {name for name, below in left.items() if not below & left.keys()}
        assert done, f"these import each other in a circle: {sorted(left)}"
        left = {name: below for name, below in left.items() if name not in done}


def test_nothing_is_named_after_a_bucket() -> None:
    paths = [path.relative_to(ROOT) for path in (*sources(), *sorted((ROOT / "tests").rglob("*.py")))]
    assert [path for path in paths if BUCKETS.intersection(path.with_suffix("").parts)] == []
    assert every(bucket_classes) == []


def handlers_imported(_: str, source: str) -> list[str]:
    return sorted(name for name in imports(source) if ours(name) == "handlers")


def bucket_classes(_: str, source: str) -> list[str]:
    classes = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return [name for name in classes if name.endswith(BUCKET_CLASSES)]


# The guard itself: each of these must be seen.


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("money", "import pipeline.inbox"),
        ("subscription", "from pipeline import outbox"),
        ("subscription", "from pipeline.paypal.client import Client"),
        ("inbox", "def later():\n    from pipeline import worker"),
        ("worker", "import handlers"),
        ("worker", "from handlers import HANDLERS"),
        ("broker", "from pipeline.simulator import stories"),
        ("commands", "from handlers.read_plan import handle"),
        ("ingress", "from pipeline import web as pages"),
        ("inbox", "from . import worker"),
        ("render", "from tests.people import alice"),
    ],
)
def test_the_guard_sees_a_wrong_arrow(name: str, source: str) -> None:
    assert wrong_arrows(name, source)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("worker", "from pipeline.inbox import load"),
        ("broker", "from pipeline.broker.line import Line"),
        ("event", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline.books import Books"),
        ("__main__", "import handlers\nfrom pipeline.cli.commands import run"),
        ("commands", "from pipeline import worker, simulator"),
    ],
)
def test_the_guard_lets_a_right_arrow_pass(name: str, source: str) -> None:
    assert not wrong_arrows(name, source)


@pytest.mark.parametrize(
    ("name", "source"),
    [("worker", "import kombu"), ("mailer", "from aiosmtplib import SMTP"), ("outbox", "import jinja2.sandbox as box")],
)
def test_the_guard_sees_a_library_in_the_wrong_place(name: str, source: str) -> None:
    assert wrong_libraries(name, source)


def test_the_guard_sees_a_handler_that_imports_another_and_a_bucket() -> None:
    assert handlers_imported("handlers", "from handlers import read_plan") == ["handlers.read_plan"]
    assert bucket_classes("mailer", "class MailManager: ...\nclass Mail: ...") == ["MailManager"]
