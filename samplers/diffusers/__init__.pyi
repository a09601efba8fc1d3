from .config import read_config as read_config
from .run import sample_seeds as sample_seeds
from .settings import SchedulerSettings as SchedulerSettings
