"""The version of ocibuild: the one place it is written."""

VERSION = "0.1.0"
