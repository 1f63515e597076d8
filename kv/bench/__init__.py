"""The load generator behind `kv bench`: a user of the public client, and nothing else of the store.

How it works: a `plan` says what to do; `fleet` starts client processes and gives each its share; in each a
`worker` lets the `generator` run what `workload` picks (keys from `keys`, times from `arrivals`) and writes what
happened into a `tally` of `histogram`s; the tallies are merged, `result` makes the figures of them and `page` the
plots.

Nothing here prints: that is `kv.cli.bench`. What draws is given its uniform numbers, what measures its clock.
"""
