"""What the samples show: paired statistics, power, and what can be said of them in words."""
