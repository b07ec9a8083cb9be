"""`python -m builder`: the same as `ocibuild`."""

from builder.cli import main

main()
