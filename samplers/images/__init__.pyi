# The public names of samplers.images. Read by type checkers, and by lazy_loader.
from .figures import Cell as Cell
from .figures import Figure as Figure
from .figures import curves as curves
from .figures import histogram as histogram
from .figures import table as table
from .files import ImageError as ImageError
from .files import image_paths as image_paths
from .files import open_image as open_image
from .files import write_png as write_png
from .inputs import read_any as read_any
from .pixels import levels_of as levels_of
from .pixels import to_images as to_images
from .pixels import values_of as values_of
from .sheets import sheet as sheet

__all__: list[str]
