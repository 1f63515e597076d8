"""Generated stubs of the proto package `kv.internal`; `make proto` rewrites them."""
