"""One job on several machines: `plan`, `run` for each part, `commit`; and all of it on a Ray cluster."""
