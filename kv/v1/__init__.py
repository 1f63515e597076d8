"""Generated stubs of the proto package `kv.v1`; `make proto` rewrites them."""
