"""Stock against guarded: what PySyncObj does as shipped, and behind our guard, under the same faults.

Two kinds of replica stand behind one face (`replica.Replica`): the library with its own messages,
vote counting, snapshots and files (`shipped`), and the production `Group` and `Engine` on the
production write-ahead log (`guarded`). A `trial` puts either kind into one event queue with one
network, one workload, one sequence of faults and one set of checks, all from one seed; a `table`
counts what many seeds did. docs/stock-against-guarded.md shows the table.

Only `shipped` imports the library, and nothing outside the simulator imports this package.
"""
