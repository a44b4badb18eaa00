from pipeline.library import collect as collect
from pipeline.library import load_settings as load_settings
from pipeline.library import open as open  # noqa: A004 - as pipeline.open it is plain

__version__: str
