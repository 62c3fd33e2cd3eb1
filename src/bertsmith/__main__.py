"""`python -m bertsmith`: the command line."""

from __future__ import annotations

from bertsmith.cli.main import main

if __name__ == "__main__":
    main()
