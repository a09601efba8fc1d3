from .config import read_config as read_config
from .settings import SchedulerSettings as SchedulerSettings
