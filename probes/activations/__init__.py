"""What a model computes at the words of a corpus: read in one pass, kept on the disk."""
