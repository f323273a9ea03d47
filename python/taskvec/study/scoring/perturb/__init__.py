"""Perturbations of the evaluated question: `kinds` lists them, `tasks` applies them to lm-eval's tasks."""
