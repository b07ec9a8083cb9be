"""Layers, configs, manifests and image layouts (OCI image-spec 1.1): from a Tree to the blobs a registry takes."""
