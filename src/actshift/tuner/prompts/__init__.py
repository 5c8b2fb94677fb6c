"""Who is prompt and who is generated, for adapters that steer not every token."""
