from .embedded.pairs import embedded_pairs as embedded_pairs
from .embedded.stories import stories as stories
from .tokenizer import load_tokenizer as load_tokenizer
from .tokenizer import train_tokenizer as train_tokenizer
