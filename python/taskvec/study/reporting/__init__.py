"""Shows results: as an HTML page with plots and tables, and as text in the terminal."""
