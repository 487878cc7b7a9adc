"""The train role: joins labels to lists, evaluates, learns, gates and publishes the model."""
