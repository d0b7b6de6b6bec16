"""The language model's graph: a few layers are traced, repeated to the full depth, and checked a part at a time.

graph: names, probes, and what a component asks of its graph. template: a small model traced by optimum-onnx. repeat:
its layers written as often as the model has them. reference: what torch makes of a probe, a layer in memory at a time.
in_place: the finished graph in the form that keeps its cache in one buffer, of the attention that attention finds.
"""
