"""The closed set of errors a user can meet. Each message names the thing, the value and the remedy."""

# How Python, CUDA, its libraries, oneDNN and torch's CPU allocator say that memory has ended; by name, for torch is not
# imported here.
MEMORY_ERRORS = {"MemoryError", "OutOfMemoryError"}
MEMORY_WORDS = (
    "out of memory", "can't allocate memory", "Cannot allocate memory", "std::bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED", "could not create a primitive", "could not create a memory object",
)  # fmt: skip


class TTTError(Exception):
    """Base of every error this library raises on purpose."""


class InputError(TTTError):
    """A task file, a task, a grid or an argument that does not hold what it must."""


class ModelError(TTTError):
    """A model directory that cannot be loaded, or a model that cannot do what is asked."""


class CheckpointError(TTTError):
    """A checkpoint, adapter or record whose contents do not match their checksum or receipt."""


class NonFiniteError(TTTError):
    """A loss, gradient or logit that is NaN or infinite."""


class PushError(TTTError):
    """Kaggle refused something, failed, or did not answer in time."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory has ended, the machine's or a GPU's."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & MEMORY_ERRORS) or any(words in str(error) for words in MEMORY_WORDS)
