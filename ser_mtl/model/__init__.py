"""What our own programs put around the model: fast front ends, on a CPU and kept on disk."""
