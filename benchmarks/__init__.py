"""How fast the engine is, as ratios within one run: `make bench`. Not tests: two cores are noisy."""
