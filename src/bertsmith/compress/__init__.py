"""Smaller and faster models from those that there are: one bundle in, one bundle and a report out."""
