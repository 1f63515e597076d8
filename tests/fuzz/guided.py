"""One target guided by coverage: `python -m tests.fuzz.guided TARGET SECONDS DIRECTORY`.

What lives here: the process that atheris (libFuzzer for Python) takes over and ends. It appends to the file
`report` in the directory, one fact a line: `outcome TEXT`, `finding HEX`, and `executions N` now and then
(libFuzzer ends the process without a word). Failures of the check do not end it, a crash of the process does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["kv"]):
    from tests.fuzz.engine import INPUT_BYTES_MAX, Finding, run_one
    from tests.fuzz.targets import TARGETS

SEEDS_DIRECTORY = "corpus"
REPORT_EVERY = 200
"""Executions between two lines about them."""


def main(name: str, seconds: str, directory: str) -> None:
    """Never returns."""
    target, place = TARGETS[name], Path(directory)
    corpus, work = place / SEEDS_DIRECTORY, place / "work"
    corpus.mkdir()
    work.mkdir()
    seeds = target.seeds()
    for number, seed in enumerate(seeds):
        (corpus / f"{number}").write_bytes(seed)
    report = os.open(place / "report", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen: set[str] = set()
    executions = 0

    def one_input(data: bytes) -> None:
        nonlocal executions
        executions += 1
        if executions % REPORT_EVERY == 0:
            os.write(report, b"executions %d\n" % REPORT_EVERY)
        result = run_one(name, check, data)
        found = isinstance(result, Finding)
        line = f"finding {data.hex()}" if found else f"outcome {result!r}"
        key = result.where if isinstance(result, Finding) else line
        if key not in seen:
            seen.add(key)
            os.write(report, line.encode() + b"\n")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.25:
            return bytes(atheris.Mutate(data, max_size))
        return target.mutate(data, rng.choice(seeds), rng)[:max_size]

    with target.make(work) as check:
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={INPUT_BYTES_MAX}",
            "-timeout=10",
            "-rss_limit_mb=4096",
        ]
        artifacts = f"-artifact_prefix={place}/"
        atheris.Setup([sys.argv[0], *options, artifacts, str(corpus)], one_input, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
