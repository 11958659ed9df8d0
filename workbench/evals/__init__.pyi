from .blimp import BlimpResult as BlimpResult
from .comparison import compare as compare
from .efficiency import inference as inference
