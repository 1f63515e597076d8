"""The store's test build: `kv serve` with one of the simulator's mutants in it, or on a disk that fails when it is told to.

    python -m tests.faulty_node --panel FOLDER [--mutant NAME] [--list-mutants] -- --node-id n1 --data-dir ...

What follows `--` goes to `kv serve`. It is not in the wheel, and no setting of `kv serve` leads here: it is a program of its own, which
replaces `Assembly`, `AsyncioShell` and `OsFiles` where `kv.node` composes a node. It says on its first line of the log what it is.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from random import Random

import kv.cli
import kv.node
from kv.errors import InvalidArgument
from tests.faulty_node.build import FaultyAssembly, mutant_of_node, mutants_of_nodes
from tests.faulty_node.clock import SkewedShell
from tests.faulty_node.damage import flip_bit
from tests.faulty_node.disk import FaultyFiles


def main() -> None:
    """Run the node."""
    parser = argparse.ArgumentParser("tests.faulty_node", description="A node that is meant to fail.")
    parser.add_argument("--panel", type=Path, help="folder by which the disk is told to fail")
    parser.add_argument("--mutant", help="one of the simulator's mutants")
    parser.add_argument("--list-mutants", action="store_true")
    parser.add_argument("serve", nargs="*", help="what `kv serve` takes, after --")
    given = parser.parse_args()
    if given.list_mutants:
        print("\n".join(mutants_of_nodes()))  # noqa: T201 - asked for
        return
    if given.panel is None:
        parser.error("--panel is needed")
    try:
        mutation = None if given.mutant is None else mutant_of_node(given.mutant)
    except InvalidArgument as error:
        parser.error(error.message)
    print(f"test build: not for data that matters; mutant {given.mutant or 'none'}", file=sys.stderr)  # noqa: T201
    vars(kv.node)["Assembly"] = partial(FaultyAssembly, mutation=mutation)
    vars(kv.node)["AsyncioShell"] = partial(SkewedShell, panel=given.panel)
    vars(kv.node)["Node"] = partial(kv.node.Node, files=partial(_open_disk, panel=given.panel))
    sys.argv = ["kv", "serve", *given.serve]
    if mutation is None:
        kv.cli.main()
        return
    with mutation.around():
        kv.cli.main()


def _open_disk(folder: str, panel: Path) -> FaultyFiles:
    told = panel / "flip"
    if told.exists():
        where = flip_bit(Path(folder), Random(told.read_text()))
        told.unlink()
        print(f"test build: flipped {where}" if where else "test build: nothing to flip", file=sys.stderr)  # noqa: T201
        if where:
            (panel / "flipped").write_text(where)
    return FaultyFiles(folder, panel)


if __name__ == "__main__":
    main()
