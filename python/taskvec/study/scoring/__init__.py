"""Asks a model and scores its answers: lm-eval's tasks as a study sets them up, prompts, and sample rows."""
