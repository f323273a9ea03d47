"""The folder of a run: who may write to it, its sample files, the digests of its inputs, its results."""
