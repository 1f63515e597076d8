"""The systems that are measured: each starts three nodes on this machine in a folder of its own and ends them."""
