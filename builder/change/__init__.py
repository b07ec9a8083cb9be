"""Changing images: of what is at hand or of what is there, another one."""
