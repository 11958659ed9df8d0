"""How often each model prefers the grammatical sentence, and where not."""
