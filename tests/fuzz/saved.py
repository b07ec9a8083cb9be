"""`python -m tests.fuzz.saved -atheris_runs=500000`."""

from tests.fuzz.run import main

if __name__ == "__main__":
    main("saved")
