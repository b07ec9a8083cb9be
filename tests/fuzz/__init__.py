"""Fuzzing of what reads bytes from elsewhere: one module a target.

`python -m tests.fuzz.tar -atheris_runs=500000` (libFuzzer's options) runs one until something other than an
OcibuildError escapes. `test_fuzz.py` runs each for a moment, with atheris and without.
"""
