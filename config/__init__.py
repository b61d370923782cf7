"""Settings of Engram: typed, frozen, loaded from a profile, files, the environment and flags, in this order.

`config.model` lists every setting; `load` gives them with where each came from.
"""
