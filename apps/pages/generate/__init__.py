"""The page "Generate": a continuation, token by token."""
