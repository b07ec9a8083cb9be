"""Looking at images: what they are, hold and cost, what changed, and whether they are sound."""
