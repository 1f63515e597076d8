"""`kv-jepsen check`: files in, words or JSON out, and an exit status that scripts can trust."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import kv_jepsen
from kv_jepsen.cli import app
from kv_jepsen.formats import dump_edn, dump_jsonl, parse

DATA = Path(__file__).parent / "data"
GOOD, BAD = DATA / "kv/c01-ok.txt", DATA / "kv/c01-bad.txt"


def run(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


@pytest.mark.parametrize(("files", "status"), [([GOOD], 0), ([BAD], 1), ([GOOD, BAD], 1)])
def test_the_status_tells_the_judgement(files: list[Path], status: int) -> None:
    """0 linearizable, 1 not; of several files the worst counts."""
    result = run(*files)
    assert result.exit_code == status
    for file, line in zip(
        files, [line for line in result.stdout.splitlines() if ".txt: " in line], strict=True
    ):
        assert line.startswith(f"{file}: {'linearizable' if file is GOOD else 'not linearizable'} (model kv")


def test_unknown_has_its_own_status(tmp_path: Path) -> None:
    """A limit that was reached is 3, and the words say which to raise."""
    hard = [
        f"INFO  jepsen.util - {process}\t:invoke\t:cas\t[{process % 3} {process % 4}]"
        for process in range(60)
    ]
    hard += [
        f"INFO  jepsen.util - {process}\t:ok\t:cas\t[{process % 3} {process % 4}]" for process in range(60)
    ]
    hard.insert(0, "INFO  jepsen.util - 99\t:invoke\t:write\t0")
    file = tmp_path / "hard.log"
    file.write_text("\n".join(hard))
    result = run(file, "--time-limit", "0.05")
    assert result.exit_code == 3, result.output
    assert "raise --time-limit" in result.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("hello", "no known format"),
        ("{:process 0 :type :ok :f :read}", "line 1"),
        ("{:process 0 :type :invoke :f :dance}", "dance"),
        (b"\xff\xfe\x00", "decode"),
    ],
)
def test_what_cannot_be_read_has_its_own_status(
    tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    """2, with the file and the reason on stderr; the other files are still judged."""
    file = tmp_path / "x"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run(file, GOOD)
    assert result.exit_code == 2
    assert f"{file}: " in result.stderr
    assert words in result.stderr
    assert f"{GOOD}: linearizable" in result.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["--model", "dance", GOOD], ["--time-limit", "0", GOOD], ["--memory-limit", "x", GOOD]]
)
def test_bad_usage_has_the_same_status(arguments: list[str | Path]) -> None:
    """2 for no file, an unknown model, a limit that is none."""
    assert run(*arguments).exit_code == 2


def test_json_says_the_same() -> None:
    """One object a file, with the judgement, the keys, and the failing part by operation numbers."""
    result = run("--json", BAD, GOOD)
    bad, good = map(json.loads, result.stdout.splitlines())
    assert (bad["linearizable"], good["linearizable"]) == (False, True)
    failing = [key for key in bad["keys"] if key["judgement"] == "not linearizable"]
    assert failing
    assert all(key["failure"]["blocked"] in key["failure"]["window"] for key in failing)


@pytest.mark.parametrize("dump", [dump_jsonl, dump_edn])
def test_our_own_formats_are_read(tmp_path: Path, dump: object) -> None:
    """A history in either of our formats is judged as the original is."""
    file = tmp_path / "history"
    file.write_text(dump(parse(BAD.read_text())))  # type: ignore[operator]
    assert run(file).exit_code == 1


def test_a_failure_is_told_in_words() -> None:
    """The key, the call that cannot be, and the calls around it."""
    output = run(BAD).stdout
    assert "no order explains process" in output
    assert "before this part it was" in output


def test_the_module_can_be_run() -> None:
    """`python -m kv_jepsen` is the command."""
    path = os.pathsep.join(
        filter(None, [str(Path(kv_jepsen.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    done = subprocess.run(
        [sys.executable, "-m", "kv_jepsen", "check", str(BAD)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "not linearizable" in done.stdout


def test_check_with_the_search_only() -> None:
    """Evidence can be left aside."""
    assert run("--search-only", GOOD).exit_code == 0
