"""Questions with known answers, and what scores a causal language model on them."""
