"""How the page looks: colours, tokens as text, and all of its HTML."""
