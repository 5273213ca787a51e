"""Pure functions: keys, permissions, encryption, hashes."""
