"""Joint adaptation: LoRA and steering in one adapter, and the orthogonality rule between them."""
