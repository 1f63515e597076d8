"""ringkv side by side with its peers, in one run, on one machine. `docs/benchmarks.md` tells how.

How it is built: `runner` takes the families of `rows/` in turn, round after round; a family starts a system of
`systems/`, has `worker` processes (our load, `load`) or h2load put load on it, and gives `record.Sample`s, which are
written as JSON lines. `goals` judges them and `report/` shows them: from the file alone, so that any run can be
rendered again.
"""
