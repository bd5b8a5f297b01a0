"""The command line: Hydra composes a command; this package explains, checks and starts it.

It stands on top: nothing but ``cpanet.sweep`` and the entry point (``cpanet.__main__``) imports it.
"""
