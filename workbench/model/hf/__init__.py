"""Models from elsewhere opened here, and ours used elsewhere: one file per family.

Another family is one more file, and one more entry in `FAMILIES`.
"""

from workbench.model.hf.bert import BERT
from workbench.model.hf.convert import family_for, from_folder, from_hf, to_bridge_state, to_hf
from workbench.model.hf.family import Family
from workbench.model.hf.gpt2 import GPT2
from workbench.model.hf.gpt_neo import GPT_NEO
from workbench.model.hf.llama import LLAMA
from workbench.model.hf.roberta import ROBERTA

__all__ = ["FAMILIES", "Family", "family_for", "from_folder", "from_hf", "to_bridge_state", "to_hf"]

FAMILIES: dict[str, Family] = {family.model_type: family for family in (GPT2, GPT_NEO, LLAMA, BERT, ROBERTA)}
"""By the name that config.json gives them."""
