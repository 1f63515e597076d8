"""`python -m kv` is the command `kv`."""

from __future__ import annotations

from kv.cli import main

if __name__ == "__main__":
    main()
