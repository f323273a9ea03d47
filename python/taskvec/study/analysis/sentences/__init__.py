"""What one benchmark shows, sentence by sentence, a subject a file; `conclusions` puts them in order."""
