"""`python -m kv_jepsen` is the command `kv-jepsen`."""

from kv_jepsen.cli import main

main()
