"""Detection without torch: bundle, preprocessing, engine, postprocessing."""

DEFAULT_MODEL = "street"
"""The shipped model that is used unless another one is named; here, as it imports nothing."""
