"""From images to features: the network of a run, its settings, and what features depend on."""
