"""Residense: residual and dense connections as interchangeable parts of NLP encoders.

`__init__.pyi` lists the public names. They are imported when first used, so that `import residense`
costs nothing and the program can handle signals before torch is loaded.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
