"""Asking a model: lm-eval's tasks as a study sets them up, prompts, the live model, one row a document."""
