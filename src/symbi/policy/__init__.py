"""What may happen: decisions by Cedar, pure."""
