"""`kv-jepsen check`: files in, words or JSON out, and an exit status that scripts can trust."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import kv_jepsen
from kv_jepsen import cli
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
        (b"\xff\xfe\x00", "no UTF-8"),
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


LINES = (
    '{"process":0,"type":"invoke","f":"write","value":1}\n{"process":0,"type":"ok","f":"write","value":1}\n'
)
DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (bytes(range(256)), "line 2: byte 128 is no UTF-8: a history is text"),
        (gzip.compress(LINES.encode(), mtime=0), "compressed by gzip: unpack it first"),
        (LINES.encode("utf-16"), "line 1: byte 0 is no UTF-8"),
        (LINES[:-9], "line 2: not JSON"),
        (LINES + "\0\0\0", "line 3: not JSON"),
        (LINES + "{:process 0, :type :invoke}", "line 3: not JSON"),
        (LINES.replace('"value":1', f'"value":{DIGITS}'), "line 1: not JSON: a number of thousands of digits"),
        (LINES.replace('"value":1', '"value":NaN'), "line 1: not JSON: NaN is no value of JSON"),
        ('{"process":0,"type":"invoke","f":"write","value":' + "[" * 9000, "line 1: not JSON"),
        (LINES + LINES.splitlines()[0] + "\n" + LINES, "line 4: process 0 invokes write while its write"),
        (LINES.splitlines()[1], "line 1: process 0 completes write (ok) without having invoked it"),
        ('{"process":0,"type":"info","f":"write","value":1}', "line 1: process 0 completes write (info) without"),
        (LINES.replace('"ok"', '"began"'), "line 2: the type 'began' is none of invoke, ok, fail, info"),
        (LINES.replace('"write"', "null"), "line 1: f is the name of a function, this is None"),
        (LINES.replace('"process":0', '"process":"c0"'), "line 1: the process 'c0' has a name"),
        (LINES.replace('"process":0', '"process":0.5'), "line 1: the process 0.5 is neither a number nor a name"),
        ("{:process :nemesis, :type :info, :f :start}", "there is no call of a client to judge"),
        ("{:process 0, :process 1, :type :invoke, :f :read}", "line 1: a map has a key twice"),
        ("{:process 0, :type :invoke, :f :read", "line 1: the text ends, '}' for line 1 was expected"),
        (LINES.replace("write", "cas"), "line 1: operation 0: cas of register: its value is a pair"),
        (LINES + LINES.replace("write", "dance"), "no single model has the functions dance, write; name one"),
        (f"INFO  jepsen.util - 0\t:invoke\t:write\t{DIGITS}\n", "line 1: a number of thousands of digits"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_told_by_its_line(tmp_path: Path, content: str | bytes, says: str) -> None:
    """Whatever stands in a file, it is a verdict or exit status 2 with the place and what is wrong; never the status of a violation."""
    file = tmp_path / "history"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 2, done.output
    assert says in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "content",
    [
        LINES + '{"process":0,"type":"invoke","f":"write","value":2}\n',
        "\ufeff" + LINES.replace("\n", "\r\n"),
        LINES.replace('"process":0', '"process":"7"'),
        LINES.replace('"process":0', f'"process":{10**30}'),
        LINES.replace('"value":1', f'"value":{10**400}'),
        LINES.replace('"value":1', '"value":"\\ud800"'),
    ],
    ids=["open at the end", "of Windows", "a number as text", "a huge process", "a huge value", "half a character"],
)  # fmt: skip
def test_what_is_odd_and_legal_is_judged(tmp_path: Path, content: str) -> None:
    """Calls that never end, other line ends, huge numbers: all of it is a history."""
    file = tmp_path / "history"
    file.write_bytes(content.encode())
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{file}: linearizable (model register, 1 key")


def test_the_folder_of_a_run_is_its_history(tmp_path: Path) -> None:
    """A folder is judged by the history in it, and one without is exit status 2."""
    assert CliRunner().invoke(app, ["check", str(tmp_path)]).exit_code == 2
    (tmp_path / "history.jsonl").write_text(LINES)
    assert CliRunner().invoke(app, ["check", str(tmp_path)]).exit_code == 0


def test_a_history_without_a_success_says_so(tmp_path: Path) -> None:
    """It is linearizable, as nothing contradicts that, and it is told that it shows nothing."""
    file = tmp_path / "history"
    file.write_text(LINES.replace('"ok"', '"info"'))
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 0
    assert "no call succeeded, so this shows nothing" in done.output


def test_an_error_of_its_own_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's exit status for an exception is that of a violation, so another one is given."""

    def broken(*_: object, **__: object) -> None:
        raise MemoryError("none left")

    (tmp_path / "history").write_text(LINES)
    monkeypatch.setattr(cli, "check", broken)
    monkeypatch.setattr("sys.argv", ["kv-jepsen", "check", str(tmp_path / "history")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == cli.EXIT_INTERNAL == 70
    told = capsys.readouterr().err
    assert "MemoryError: none left" in told
    assert "so there is no verdict" in told
