"""Registries: the distribution API (distribution-spec 1.1) from the client's side."""
