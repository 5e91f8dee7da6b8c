"""Errors that a user can act on. Each message is one sentence: what was wrong, where, and what to do."""


class DreamBooth3DError(ValueError):
    """Base of all errors that end a command with exit code 1 and one sentence, without a traceback.

    The sentence stays on one line, whatever of a user's input it quotes, and holds nothing that a terminal would obey.
    """

    def __init__(self, message: str = "") -> None:
        """What was wrong, where, and what to do."""
        super().__init__("".join(map(_shown, message)))


class PhotoSetError(DreamBooth3DError):
    """The photo set cannot be used: missing, empty, unreadable or too small."""


class DatasetError(DreamBooth3DError):
    """The DVC-tracked data is missing, not pulled, or differs from its recorded hash."""


class ConfigError(DreamBooth3DError):
    """A configuration holds an unknown key, a wrong type or a value out of range."""


class BaseModelError(DreamBooth3DError):
    """A base model or scorer is missing, damaged, or does not know a word it needs."""


class HubError(DreamBooth3DError):
    """The Hugging Face hub refuses an upload, or does not answer."""


class ArtifactError(DreamBooth3DError):
    """A stored artifact is gone or damaged, or names a file outside its folder.

    Attributes:
        uri: of the artifact that is damaged, or of a file in it; None where none is known to be.
        referrer: of the artifact that names that file, where it is another one.
        recomputed: whether the step that made it has been told to run again.
    """

    def __init__(self, message: str, uri: str | None = None, referrer: str | None = None) -> None:
        """What is wrong, in one sentence."""
        super().__init__(message)
        self.uri, self.referrer, self.recomputed = uri, referrer, False


class CollapseError(DreamBooth3DError):
    """A radiance field became empty, full or NaN, and retries did not help."""


class GuardError(DreamBooth3DError):
    """A guard that is configured to stop a run tripped."""


class EmptyFieldError(DreamBooth3DError):
    """A radiance field has no surface where one is needed, for example for the mesh."""


class DiskError(DreamBooth3DError):
    """A disk is full, read-only, or does not answer."""


class MemoryShortageError(DreamBooth3DError):
    """The memory of the machine, or of its GPU, does not suffice."""


class RunNotFoundError(DreamBooth3DError):
    """No run answers to the given name."""


class PromotionError(DreamBooth3DError):
    """A version cannot become the production version, or there is none to go back to."""


class LockError(PromotionError):
    """Another process holds, or has taken over, the lock on a subject's production version."""


_ASIDE = "(raised as a result of Query-invoked autoflush"
"""What SQLAlchemy says, on a line of its own, before the error itself."""


def gist(error: Exception) -> str:
    """The first line of what any error says, or its type where it says nothing; for a log line or a finding."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(_ASIDE)]
    return lines[0] if lines else type(error).__name__


def _shown(character: str) -> str:
    if character.isprintable() or character in "\u200c\u200d":
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
