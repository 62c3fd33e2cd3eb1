"""The three errors that a user can cause and can mend; each message says what, where, and what to do."""

from __future__ import annotations


class BertsmithError(Exception):
    """Something in the request is wrong; the command line prints the message alone and exits with 2."""


class ConfigError(BertsmithError):
    """A setting, an option or a combination of them cannot work."""


class DataError(BertsmithError):
    """An input file cannot be used as it is."""


class BundleError(BertsmithError):
    """A model folder is absent, damaged, refused, or could not be written."""
