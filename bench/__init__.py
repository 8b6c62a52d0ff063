"""What a gated request costs, measured against a bare pass-through in the same minute."""
