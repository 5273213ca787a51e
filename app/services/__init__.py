"""The use cases: what the service decides. Whoever asks comes first."""
