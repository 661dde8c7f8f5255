"""What happens before the first denoising step: pure functions on tensors, and the network that has no clock."""
