"""One partition: propose, apply and read its keys, on top of one Raft group.

Read DESIGN.md here first. `batch` decodes what clients send, `machine` applies it, `reads` and `read`
answer reads at each level (all pure, with `session` and `record`); `store` keeps it in LMDB, `snapshot` copies it;
`answers` ends requests, and `partition` is the shell that joins them under the Raft group.
"""
