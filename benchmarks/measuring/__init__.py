"""How the benchmarks measure: processes, databases, the machine, and reports."""
