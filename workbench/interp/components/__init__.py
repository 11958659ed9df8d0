"""From minimal pairs to the components that decide them."""
