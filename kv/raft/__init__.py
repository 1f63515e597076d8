"""Replication: the log, the consensus core behind its guard, and the engine that drives them."""
