"""Check that the built sdist and wheel ship what a user of the stubs and of the types needs.

Run it through `make wheel`. Only the contents of the two archives are judged here.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def expected_in_wheel() -> set[str]:
    """Return every source and type file of the package, as the wheel should name it."""
    suffixes = {".py", ".pyi", ".typed", ".md"}
    files = [path for path in (ROOT / "kv").rglob("*") if path.suffix in suffixes]
    return {path.relative_to(ROOT).as_posix() for path in files} | {"kv/py.typed"}


def expected_in_sdist() -> set[str]:
    """Return what the sdist must hold: the wheel's files and the protos, to regenerate the stubs."""
    protos = {path.relative_to(ROOT).as_posix() for path in (ROOT / "proto").rglob("*.proto")}
    return expected_in_wheel() | protos | {"pyproject.toml", "LICENSE"}


def missing(dist: Path) -> list[str]:
    """Return one line for each file that an archive in `dist` lacks; exactly one of each must be there."""
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    lines = [f"{wheel.name} lacks {name}" for name in expected_in_wheel() - in_wheel]
    lines += [f"{sdist.name} lacks {name}" for name in expected_in_sdist() - in_sdist]
    return sorted(lines)


def main() -> int:
    """Print what is missing in the folder named by the first argument; return the exit code."""
    lines = missing(Path(sys.argv[1]))
    print("\n".join(lines) if lines else "sdist and wheel are complete")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
