"""The shared vocabulary: what comes in, what goes out, and the words for it."""
