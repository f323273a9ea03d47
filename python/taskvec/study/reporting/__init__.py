"""Results for people: the page with its plots and tables, and the terminal."""
