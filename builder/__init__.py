"""Recipes, CPython, OCI and registries: the upper half of ocibuild."""
