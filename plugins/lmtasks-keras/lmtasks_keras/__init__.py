"""keras: an engine for lmtasks, whose steps Keras' ``fit`` makes on JAX, TensorFlow or torch."""
