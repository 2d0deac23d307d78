"""`python -m panic` is `panic`."""

from panic.cli import main

main()
