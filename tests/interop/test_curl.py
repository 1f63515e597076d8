"""docs/http.md tells the truth: its curl lines run, in their order, against a real cluster and get what is shown.

What differs from run to run may differ in value; the rest must be the same. The tables of the page are held to
the code. When replies have changed on purpose, `python -m tests.interop.transcript` writes the page anew.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from kv.cli.cluster_process import LocalCluster
from kv.client.levels import LEVEL_TEXTS, WRITE_LEVEL_TEXTS
from kv.errors import REGISTRY
from kv.gateway import make_app
from kv.ids import GroupId
from tests.integration import support
from tests.interop.transcript import CHANGING, PAGE, Reply, Transcript, lines, reply_of

pytestmark = pytest.mark.timeout(120)

TEXT: Final = PAGE.read_text(encoding="utf-8")


def table(header: str) -> list[list[str]]:
    """Return the rows of the table whose header line begins with these cells, each row as cells."""
    rest = TEXT.partition(f"\n| {header} |")[2].splitlines()[2:]
    rows = []
    for line in rest:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows, f"no table {header}"
    return rows


def names(cell: str) -> list[str]:
    """Return what stands in code style in a cell."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Give a cluster like that of `kv demo`, on other ports, in which no key was written yet."""
    if shutil.which("curl") is None:
        pytest.fail("these tests need curl: install it")
    with support.started(tmp_path_factory.mktemp("curl")) as cluster:
        yield cluster


def compare(shown: Reply, real: Reply) -> None:
    """Check that a reply is what the page shows."""
    assert shown.status == real.status
    for name, value in shown.headers.items():
        assert name in real.headers, f"no header {name}"
        same(name, value, real.headers[name])
    same("", json.loads(shown.body), json.loads(real.body))


def same(name: str, shown: Any, real: Any) -> None:  # noqa: ANN401 - any JSON
    """Check that a value is what the page shows, or at least of its type if `name` is of those that change."""
    assert type(shown) is type(real), f"{name}: {real!r}"
    if real == {"outcome": "not_applied", "results": []}:
        assert shown.keys() == real.keys()  # whether a lost write was applied is not ours to choose
    elif isinstance(shown, dict):
        assert shown.keys() == real.keys(), name
        for key in shown:
            same(key, shown[key], real[key])
    elif isinstance(shown, list):
        for left, right in zip(shown, real, strict=True):
            same(name, left, right)
    elif name == "message":
        assert re.sub(r"\d+", "0", shown) == re.sub(r"\d+", "0", real)
    elif name == "kv-level" and shown == "lease":
        assert real in {"lease", "linearizable"}  # on a busy machine a lease may have run out
    elif name not in CHANGING:
        assert shown == real, name


def test_the_page_is_a_transcript(fresh: LocalCluster) -> None:
    """Each curl line of the page ends with the exit status, the HTTP status, the headers and the body shown there."""
    found = lines(TEXT)
    assert len(found) > 40
    for line, command, status, real in Transcript(fresh).play(found):
        try:
            assert status == line.exit_status
            compare(reply_of(line.shown), real)
        except (AssertionError, ValueError) as error:
            pytest.fail(f"{command}\n{real}\nexit {status}: {error}")


class Nobody:
    """A router that is never asked."""

    async def execute(self, raw_batch: bytes, timeout_s: float, partition: GroupId = 0) -> bytes:
        """Fail the test."""
        raise AssertionError("only the routes are looked at")


def test_each_path_is_on_the_page() -> None:
    """The table of paths has each path of the gateway with its methods, and no other."""
    app = make_app(Nobody(), ready=lambda: None, registry=CollectorRegistry(), timeout_s=1.0)
    routes = [route for route in app.routes if isinstance(route, Route)]
    served = {route.path: (route.methods or set()) - {"HEAD"} for route in routes}
    assert {names(path)[0]: set(methods.split(", ")) for methods, path, _ in table("method | path")} == served


def test_each_field_is_on_the_page(fresh: LocalCluster) -> None:
    """The table of fields has exactly what each path says that it takes, and each field is explained."""
    explained = {name for row in table("field") for name in names(row[0])}
    for path, fields in table("path | fields"):
        url = f"http://{fresh.specs['n1'].http_address}{names(path)[0]}"
        if path == "`/get`":
            reply = httpx.get(url, params={"nonsense": "1"})
        else:
            reply = httpx.post(url, json={"nonsense": 1})
        assert reply.status_code == 400
        taken = re.search(r"this path takes ([^.]+)\.", reply.json()["error"]["message"])
        assert taken
        assert sorted(taken[1].split(", ")) == sorted(names(fields)), path
        assert set(names(fields)) <= explained


def test_each_evidence_header_is_on_the_page(fresh: LocalCluster) -> None:
    """The headers of ours that replies have are those of the table, all of them."""
    base = f"http://{fresh.specs['n1'].http_address}"
    replies = [httpx.post(f"{base}/put", json={"key": "headers", "value": "1"})]
    levels = ("linearizable", "bounded:5s", "all")
    replies += [httpx.get(f"{base}/get", params={"key": "headers", "level": level}) for level in levels]
    assert [reply.status_code for reply in replies] == [200] * 4
    seen = {name for reply in replies for name in reply.headers if name.startswith("kv-")}
    assert seen == {names(row[0])[0] for row in table("header")}


def test_each_level_is_on_the_page() -> None:
    """The tables of levels have the texts that the parsers name, in their order."""
    assert [names(row[0])[0] for row in table("`level`")] == LEVEL_TEXTS.split(", ")
    assert [names(row[0])[0] for row in table("`write`")] == WRITE_LEVEL_TEXTS.split(", ")


def test_each_status_is_on_the_page() -> None:
    """The table of statuses has each status that an error or a wrong path can have."""
    statuses = {cls.http_status for cls in REGISTRY.values()}
    assert {int(row[0]) for row in table("status")} == statuses | {200, 404, 405}


def test_links_lead_somewhere() -> None:
    """Every relative link of the page names a file and, if it names one, a heading in it."""
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, anchor = target.partition("#")
        text = (PAGE.parent / file).read_text(encoding="utf-8") if file else TEXT
        headings = {
            re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        assert not anchor or anchor in headings, target
