"""What a model is worth: fine-tuned, or probed, on the tasks of a suite, over several seeds."""
