"""The checked-in stubs and the declared floors agree. That the stubs are current is `make stubs`."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROTOS = sorted(path.relative_to(ROOT / "proto") for path in (ROOT / "proto").rglob("*.proto"))
GENCODE = re.compile(r"^# Protobuf Python Version: (\S+)$", re.MULTILINE)
GRPC_GENERATED = re.compile(r"^GRPC_GENERATED_VERSION = '(\S+)'$", re.MULTILINE)


def floor(distribution: str) -> Version:
    """Return the lowest version of `distribution` that pyproject.toml allows."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    requirements = [Requirement(line) for line in pyproject["project"]["dependencies"]]
    (specifier,) = (r.specifier for r in requirements if r.name == distribution)
    (lowest,) = (Version(s.version) for s in specifier if s.operator == ">=")
    return lowest


def only_match(pattern: re.Pattern[str], path: Path) -> Version:
    """Return the one version that `pattern` finds in the file."""
    (found,) = pattern.findall(path.read_text(encoding="utf-8"))
    return Version(found)


@pytest.mark.parametrize("proto", PROTOS, ids=str)
def test_protobuf_floor_runs_the_stubs(proto: Path) -> None:
    """The lowest protobuf that we declare runs the stubs: a runtime refuses code of a newer generator."""
    generated = only_match(GENCODE, ROOT / proto.with_name(f"{proto.stem}_pb2.py"))
    assert generated <= floor("protobuf"), "raise the protobuf floor in pyproject.toml"


@pytest.mark.parametrize("proto", PROTOS, ids=str)
def test_grpcio_floor_runs_the_stubs(proto: Path) -> None:
    """The lowest grpcio that we declare runs the service stubs, which refuse an older one."""
    generated = only_match(GRPC_GENERATED, ROOT / proto.with_name(f"{proto.stem}_pb2_grpc.py"))
    assert generated <= floor("grpcio"), "raise the grpcio floor in pyproject.toml"


@pytest.mark.parametrize("proto", PROTOS, ids=str)
def test_import_path_mirrors_the_proto_package(proto: Path) -> None:
    """A proto in package a.b imports as a.b.<file>_pb2, without path tricks."""
    package = ".".join(proto.parent.parts)
    module = importlib.import_module(f"{package}.{proto.stem}_pb2")
    assert module.DESCRIPTOR.package == package


def test_protos_were_found() -> None:
    """The parametrized tests above are not vacuous."""
    assert PROTOS
