"""``task=explore``: a page on which to try supports and queries, and to look at a run's test episodes.

``page`` lays it out with Gradio, ``session`` answers, ``arrays`` are pure functions.
"""
