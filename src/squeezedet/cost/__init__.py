"""What a network weighs: parameters, FLOPs, activations and memory, layer by layer.

``trace`` (a torch module) and ``onnx`` (a file) make a ``Graph``; ``layers`` counts it and
``memory`` lays it out in time. Nothing here knows a particular detector.
"""
