"""What the user decided: ``config.toml``, the environment and options as frozen settings.

Nothing here knows the network or the database.
"""

from pipeline.settings.environment import FILE_VARIABLE, find_proxy
from pipeline.settings.load import (
    BUILTIN,
    config_file,
    config_name,
    load_settings,
    with_overrides,
)
from pipeline.settings.tables import (
    KINDS,
    CollectSettings,
    Missed,
    NotifySettings,
    SandboxSettings,
    ScheduleSettings,
    Settings,
    SourceScheduleSettings,
    SourceSettings,
    StoreSettings,
    hide_password,
)
