"""Runs the JavaScript client beside this file: installs what its package.json names, plays one scene.

Everything happens in a folder of its own that holds the client, `proto/kv/v1/` and nothing else of ringkv.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from kv.cli.cluster_process import LocalCluster

HERE: Final = Path(__file__).resolve().parent
PROTOS: Final = HERE.parent.parent / "proto" / "kv" / "v1"
FILES: Final = ("package.json", "client.js", "wire.js")

SKIP_VARIABLE: Final = "KV_TEST_SKIP_NODE"
INSTALL_ATTEMPTS_MAX: Final = 3
"""The registry is another machine: one failure of it is not ours."""
INSTALL_TIMEOUT_S: Final = 30
SCENE_TIMEOUT_S: Final = 30

Step = dict[str, Any]
"""A line that the client printed, without its name."""


def require() -> str:
    """Return the path of npm; skip if the environment says so, fail if Node.js is not there."""
    if os.environ.get(SKIP_VARIABLE):
        pytest.skip(f"{SKIP_VARIABLE} is set")
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.fail(
            f"these tests need Node.js 20 and npm: install them, or set {SKIP_VARIABLE}=1 to leave them out"
        )
    return npm


@dataclass(frozen=True, slots=True)
class NodeClient:
    """An installed client and the cluster that it talks to."""

    directory: Path
    cluster: LocalCluster

    def play(self, scene: str, **options: object) -> dict[str, Step]:
        """Return what each step of a scene printed, in order, by the name of the step."""
        nodes = {node: spec.address for node, spec in self.cluster.specs.items()}
        argument = {"protos": str(self.directory / "proto"), "nodes": nodes, **options}
        done = subprocess.run(
            ["node", "client.js", scene, json.dumps(argument)],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=SCENE_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"scene {scene} failed:\n{done.stdout}\n{done.stderr}"
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        steps = {line.pop("step"): line for line in lines}
        assert len(steps) == len(lines), f"scene {scene} uses the name of a step twice"
        return steps


def install(npm: str, directory: Path, cluster: LocalCluster) -> NodeClient:
    """Copy the client and the protocol into `directory` and install the client's dependencies there."""
    for name in FILES:
        shutil.copy(HERE / name, directory)
    shutil.copytree(PROTOS, directory / "proto" / "kv" / "v1")
    _npm_install(npm, directory)
    return NodeClient(directory, cluster)


def _npm_install(npm: str, directory: Path) -> None:
    # What npm has in its cache is not asked for again; scripts of packages are none of our business.
    flags = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--prefer-offline")
    said = ""
    for _ in range(INSTALL_ATTEMPTS_MAX):
        try:
            done = subprocess.run(
                [npm, "install", *flags],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=INSTALL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = str(error)
            continue
        if done.returncode == 0:
            return
        said = done.stderr
    pytest.fail(f"npm could not install {directory}/package.json in {INSTALL_ATTEMPTS_MAX} attempts:\n{said}")
