"""The engine under a seeded scheduler: time is virtual, and everything that can go wrong goes wrong by dice.

The same seed plays the same story, to the last moment. `python -m tests.simulation --seed 7 --trace` tells it.
"""
