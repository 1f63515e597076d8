"""Generate `kv/client/sync.py`, the synchronous twin, from `kv/client/aio.py`, or check that it is current.

Each public method of `AsyncClient` becomes one of `Client` with the same signature and docstring, which
runs the asynchronous one on the client's private event loop. So there is one client to test and two to use.

    python tools/gen_sync_client.py            write the file
    python tools/gen_sync_client.py --check    exit with 1 if the file is not what would be written
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "kv" / "client" / "aio.py"
TARGET = ROOT / "kv" / "client" / "sync.py"

HEADER = '''"""`Client`: the synchronous face of the client. Generated from `aio.py` by `tools/gen_sync_client.py`.

Do not edit: change `AsyncClient` and generate again.
"""

from __future__ import annotations

{imports}
from kv.client.portal import Portal


class Client:
    """A client of one cluster for programs without an event loop; safe to share among threads.

    It runs an `AsyncClient` on an event loop in a thread of its own, so calls of several threads
    travel together, and everything that `AsyncClient` promises holds here.

    It does not survive `os.fork`: make one in each process, after the fork.
    """
'''

ENTER = """
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
"""


def generate(source: str) -> str:
    """Return the text of the synchronous client for the text of the asynchronous one."""
    module = ast.parse(source)
    client = next(
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "AsyncClient"
    )
    methods = [_method(source, node) for node in client.body if _wanted(node)]
    body = "".join(methods)
    text = HEADER.format(imports=_imports(module, body + ENTER)) + body
    return _format(text)


def _wanted(node: ast.stmt) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return not node.name.startswith("_") or node.name in {"__init__", "__aenter__"}


def _method(source: str, node: ast.stmt) -> str:
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), "checked by _wanted"
    if node.name == "__aenter__":
        return ENTER
    if isinstance(node, ast.FunctionDef) and node.name != "__init__":
        segment = ast.get_source_segment(source, node)
        decorators = "".join(f"    @{ast.unparse(one)}\n" for one in node.decorator_list)
        return f"\n{decorators}    {segment}\n"
    return f"\n{_signature(source, node)}\n{_docstring(source, node)}\n{_body(node)}\n"


def _signature(source: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return everything before the docstring, as it stands but not asynchronous."""
    lines = source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    text = "\n".join(lines).replace("async def", "def").replace("AsyncIterator", "Iterator")
    return re.sub(r"AsyncGenerator\[(.*), None\]", r"Iterator[\1]", text)


def _docstring(source: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    first = node.body[0]
    assert ast.get_docstring(node), f"AsyncClient.{node.name} needs a docstring"
    return "\n".join(source.splitlines()[first.lineno - 1 : first.end_lineno])


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = ", ".join(
        [argument.arg for argument in node.args.args[1:]]
        + [f"{argument.arg}={argument.arg}" for argument in node.args.kwonlyargs]
    )
    if node.name == "__init__":
        return f"        self._client = AsyncClient({arguments})\n        self._portal = Portal('kv-client')"
    if node.name == "close":
        return (
            "        if not self._portal.closed:\n            self._portal.call(self._client.close())\n"
            "            self._portal.close()"
        )
    if node.name.endswith("_pages"):
        return f"        yield from self._portal.iterate(self._client.{node.name}({arguments}))"
    if _yields(node):
        # Page by page: crossing into the loop's thread for each item would cost more than the item.
        return f"        for page in self.{node.name}_pages({arguments}):\n            yield from page"
    return f"        return self._portal.call(self._client.{node.name}({arguments}))"


def _yields(node: ast.AST) -> bool:
    return any(isinstance(inner, ast.Yield) for inner in ast.walk(node))


def _imports(module: ast.Module, body: str) -> str:
    """Return the imports of the source that `body` needs, and that of the source itself."""
    used = {node.id for node in ast.walk(ast.parse(f"class _:\n{body}")) if isinstance(node, ast.Name)}
    used |= {node.value.id for node in ast.walk(ast.parse(f"class _:\n{body}"))
             if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}  # fmt: skip
    lines = ["from kv.client.aio import AsyncClient"]
    for node in module.body:
        if isinstance(node, ast.Import):
            lines += [f"import {name.name}" for name in node.names if name.name in used]
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names = [name.name for name in node.names if name.name in used]
            if node.module == "collections.abc":
                names += ["Iterator"]
            if names:
                lines.append(f"from {node.module} import {', '.join(sorted(names))}")
    return "\n".join(lines)


def _format(text: str) -> str:
    for arguments in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(TARGET), "-"]
        text = subprocess.run(
            command, input=text, capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout
    return text


def main() -> int:
    """Write or check the file; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    text = generate(SOURCE.read_text())
    if not parser.parse_args().check:
        TARGET.write_text(text)
        return 0
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    print(f"{TARGET.relative_to(ROOT)} is not current: run python tools/gen_sync_client.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
