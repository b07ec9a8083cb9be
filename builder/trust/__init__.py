"""What proves an image: what is in it (SBOM), where that came from (provenance), and how both are attached to it."""
