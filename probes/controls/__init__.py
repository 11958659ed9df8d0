"""What a probe's score is worth: baselines without a model, random labels, description length,
selectivity."""
