"""Joint adaptation: LoRA and steering in one adapter, what keeps them apart, and each half alone."""
