"""A receiver of what the relay carries: verifies each payload, keeps it, acknowledges it with its own signature.

`judging` holds the rules, without I/O; `permits` remembers who held a validator permit at which block; `records` keeps
what was accepted; `receiver` does one submission after the other.
"""
