"""The built-in engine: extractive summaries and rule-based insights, with no model and no network."""
