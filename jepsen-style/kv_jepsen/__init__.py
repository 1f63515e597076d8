"""kv_jepsen: the partition-tolerance harness. Histories, models and checkers are pure; see each file's first lines."""
