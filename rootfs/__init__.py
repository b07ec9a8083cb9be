"""Debian, files and sandboxes: the lower half of ocibuild. Never imports `builder`."""
