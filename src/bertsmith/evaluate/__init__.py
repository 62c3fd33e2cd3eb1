"""Trust: scores on labelled rows."""
