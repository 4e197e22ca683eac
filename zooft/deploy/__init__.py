"""One self-contained ONNX file: made, verified, and run on new data."""
