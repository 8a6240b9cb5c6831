"""What happens around training: progress, averaging, predictions, the final report."""
