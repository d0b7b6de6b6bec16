"""Components as graphs: named inputs and outputs, example inputs, ONNX files."""
