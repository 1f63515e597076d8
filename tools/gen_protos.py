"""Generate the protobuf and gRPC stubs under `kv/` from `proto/`, or check that they are current.

Run it through `make proto` and `make stubs`, with the interpreter of `.venv-proto`: the compiler's version
decides the floors of protobuf and grpcio, so it is pinned apart from the development environment.
Only generation lives here; which tool versions are used is said in `tools/requirements-proto.txt`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO_ROOT = ROOT / "proto"
STUB_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
PACKAGE_INIT = '"""Generated stubs of the proto package `{package}`; `make proto` rewrites them."""\n'


def proto_files() -> list[Path]:
    """Return every `.proto` file, relative to `proto/`, in a stable order."""
    return sorted(path.relative_to(PROTO_ROOT) for path in PROTO_ROOT.rglob("*.proto"))


def expected_stubs(protos: list[Path]) -> set[Path]:
    """Return the stub files that the given protos produce, relative to the output root."""
    return {proto.with_name(proto.stem + suffix) for proto in protos for suffix in STUB_SUFFIXES}


def present_stubs(root: Path) -> set[Path]:
    """Return the stub files that exist below `root/kv`, relative to `root`."""
    return {
        path.relative_to(root)
        for path in (root / "kv").rglob("*_pb2*")
        if path.name.endswith(STUB_SUFFIXES) and "__pycache__" not in path.parts
    }


def generate(out: Path, protos: list[Path]) -> None:
    """Write the stubs of `protos` below `out`; a compiler error raises CalledProcessError."""
    plugins = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTO_ROOT}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *(str(PROTO_ROOT / proto) for proto in protos),
    ]
    subprocess.run(command, check=True, env={**os.environ, "PATH": plugins})


def write(protos: list[Path]) -> None:
    """Regenerate the stubs in place, drop those whose proto is gone, add missing package files."""
    for orphan in present_stubs(ROOT) - expected_stubs(protos):
        (ROOT / orphan).unlink()
    generate(ROOT, protos)
    for package in sorted({folder for proto in protos for folder in proto.parents[:-2]}):
        init = ROOT / package / "__init__.py"
        if not init.exists():
            init.write_text(PACKAGE_INIT.format(package=".".join(package.parts)), encoding="utf-8")


def differences(protos: list[Path]) -> list[str]:
    """Return one line for each stub that is missing, left over or not what the protos give now."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh, protos)
        expected, present = expected_stubs(protos), present_stubs(ROOT)
        lines = [f"missing: {path}" for path in expected - present]
        lines += [f"left over: {path}" for path in present - expected]
        lines += [
            f"out of date: {path}"
            for path in expected & present
            if (fresh / path).read_bytes() != (ROOT / path).read_bytes()
        ]
    return sorted(lines)


def main() -> int:
    """Regenerate, or with `--check` only compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is checked in; write nothing")
    arguments = parser.parse_args()
    protos = proto_files()
    if not protos:
        print(f"no .proto files below {PROTO_ROOT}", file=sys.stderr)
        return 1
    if not arguments.check:
        write(protos)
        print(f"generated the stubs of {len(protos)} protos")
        return 0
    stale = differences(protos)
    print("\n".join([*stale, "run `make proto` and commit the result"]) if stale else "stubs are current")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
