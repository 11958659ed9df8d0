"""Take parts of the model out, exchange what they write, and see what that does."""
