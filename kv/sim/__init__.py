"""The simulator: the production code in virtual time, from one seed.

See DESIGN.md. Nothing outside this folder and `kv.cli` imports it.
"""
