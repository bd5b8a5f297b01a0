"""Checks for a machine with a GPU, as single commands that run unattended; see ``README.md`` beside this file."""
