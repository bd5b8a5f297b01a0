"""Records of a run: ``result.json``, tables, TensorBoard events, figures."""
