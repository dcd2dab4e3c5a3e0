"""The training loop, the model class that BasicSR's users know, checkpoints, distributed start."""
