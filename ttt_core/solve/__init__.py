"""One task, from its demonstrations to two attempts per test input."""
