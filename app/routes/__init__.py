"""HTTP: translate, guard, one call."""
