"""What tests of Symbi, and of code built on it, need."""
