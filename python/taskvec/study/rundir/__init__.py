"""The folder of a run: its lock, its sample files, the digests of its inputs, and its results."""
