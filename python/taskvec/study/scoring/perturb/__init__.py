"""Perturbations of the evaluated question: `kinds` names them, `tasks` puts them on lm-eval's tasks."""
