"""bertsmith: from a folder of text to an encoder you own, and from that encoder to answers."""

__version__ = "0.1.0"
