"""Scores the miners of a subnet by what they hold and how fast they answer, and sets weights by it.

`scoring`, `standing`, `agreement`, `planting` and `due` are the rules, without I/O; `questions` and `miner_client` ask
miners; `round` performs one round, one committed fact after the other; `weights_setter` sets weights when they are due.
"""
