"""PyTorch's operator database on the device, against the CPU."""
