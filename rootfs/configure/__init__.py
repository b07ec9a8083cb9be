"""Configure: what maintainer scripts would have done, one handler for each effect, none of them run."""
