"""Reports: one self-contained page for each run, and an index over all. Pure: values in, text out.

Where the pages are written is in `kv_jepsen.results`.
"""

from kv_jepsen.report.index import index
from kv_jepsen.report.page import report
from kv_jepsen.report.run import Run, Summary

__all__ = ["Run", "Summary", "index", "report"]
