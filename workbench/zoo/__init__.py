"""The shipped family of models and its table; `workbench.load("zoo/tiny-4h")` opens one of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
