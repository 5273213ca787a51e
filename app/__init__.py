"""Chat Summarization and Insights API."""
