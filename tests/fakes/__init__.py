"""Fakes of the four ports. Each passes the same suite as the real thing (`tests/unit/test_ports.py`)."""
