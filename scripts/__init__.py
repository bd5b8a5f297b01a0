"""What a GPU has to show, as single commands that run unattended; see ``README.md`` beside this file."""
