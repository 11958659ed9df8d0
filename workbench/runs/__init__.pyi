from .foreign import copy_run as copy_run
from .foreign import export as export
from .foreign import import_run as import_run
from .foreign import save_run as save_run
from .run import Run as Run
from .run import as_model as as_model
from .run import list_runs as list_runs
from .run import load as load
