"""Pages: what their text says, and what a browser finds."""
