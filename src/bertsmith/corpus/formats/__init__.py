"""One file a format: a function from a Source to its Documents; `corpus/readers.py` has the table of suffixes."""
