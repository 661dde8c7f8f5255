"""What happens before the first denoising step: functions on tensors, and the network without timestep conditioning."""
