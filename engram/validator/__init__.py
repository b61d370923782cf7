"""Scores the miners of a subnet by what they hold and how fast they answer, and sets weights by it.

`scoring`, `standing`, `round_rules`, `peers`, `planting` and `due` are the rules, without I/O; `gardening` and
`tending` plant at the miners, `asker` and `miner_client` ask them; `rounds` performs one round, one committed fact
after the other; `weights_setter` sets weights when they are due.
"""
