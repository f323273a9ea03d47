"""Studies: does a vector do what it is meant to, against controls, on benchmarks."""
