"""Generated stubs of the proto package `kv.internal.v1`; `make proto` rewrites them."""
