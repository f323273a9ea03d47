"""The sentences on one benchmark, with one file for each subject; `conclusions` puts them in order."""
