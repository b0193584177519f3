"""Detection without torch: bundle, preprocessing, engine, postprocessing."""
