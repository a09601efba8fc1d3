"""What a model is about: the parameters of a scene, their ranges, and prompts that state them.

Each subject has a folder (``cylinder``, ``smoke``) with the scene itself, its captions and its
family. ``quantities`` reads numbers with units, ``ranges`` samples parameter spaces, ``registry``
is the table of subjects. No equation is solved here, and no network belongs here.
"""

from text2pde.subject.registry import (
    SUBJECTS,
    Scene,
    Subject,
    caption,
    read_prompt,
    scene_from,
    subject_of,
)

__all__ = ["SUBJECTS", "Scene", "Subject", "caption", "read_prompt", "scene_from", "subject_of"]
