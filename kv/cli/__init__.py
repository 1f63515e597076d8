"""The command `kv`: what a person types, and the only floor that prints.

One file holds each group of commands. What is heavy (grpc, rich, uvicorn) is imported by the command
that needs it, so that `kv --help` and shell completion stay quick.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and end it with the exit status of `kv.errors.ExitCode`."""
    from kv.cli.app import main as app_main  # noqa: PLC0415 - `import kv.cli` alone must not load typer

    app_main()
