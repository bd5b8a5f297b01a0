"""A trained network as two ONNX graphs: a support encoder and a query segmenter (extra ``export``)."""
