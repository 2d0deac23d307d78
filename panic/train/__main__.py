"""`python -m panic.train CONFIG [--set KEY=VALUE]`, for `accelerate launch`; equal to `panic train`."""

from __future__ import annotations

import sys

from panic.cli import main

if __name__ == "__main__":
    sys.argv = [sys.argv[0], "train", *sys.argv[1:]]
    main()
