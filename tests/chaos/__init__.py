"""Chaos as a program: real processes, seeded harm, clients that check every position.

``python -m tests.chaos --seconds 60 --seed 1`` (or ``make chaos SECONDS=60 SEED=1``).
"""
