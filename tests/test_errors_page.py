"""docs/errors.md says what kv/errors.py does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_of_errors_is_what_the_code_gives() -> None:
    """Every error class is on the page with its reason, statuses, exception, definiteness and hint."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_errors_page.py"), "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"run python tools/gen_errors_page.py; {done.stderr}"
