"""Debian's texts and archives as values: control data, versions, relations, packages, Release files, .debs."""
