"""`python -m benchmarks`."""

import os

# Before grpc is imported: its fork handlers run in every child between fork and exec, and crash some of many h2loads.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from benchmarks.cli import main

raise SystemExit(main())
