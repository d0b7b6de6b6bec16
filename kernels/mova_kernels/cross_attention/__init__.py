"""Cross-attention of (image, expert) pairs with 2-D rotary embedding."""
