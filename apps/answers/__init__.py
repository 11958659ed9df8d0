"""What the pages say, as plain numbers: remembered calls of the library. No widget in here."""
