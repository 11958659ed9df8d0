"""What each head looks at and each neuron fires on: finders, and a card for one of each."""
