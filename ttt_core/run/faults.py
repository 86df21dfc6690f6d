"""What an exception of a worker tells of: the machine or the task, for now or for good. No torch: its errors are known by name."""

import errno

from ttt_core.errors import TTTError, is_out_of_memory

GPU_ERROR = "AcceleratorError"
GPU_WORDS = ("CUDA error", "CUBLAS_STATUS", "cuDNN error")
PASSING = {getattr(errno, name) for name in "EIO ENOMEM EAGAIN EBUSY ESTALE ETIMEDOUT EMFILE ENFILE".split()}


def is_system(error: Exception) -> bool:
    """Whether memory or the GPU failed, and not the task."""
    is_gpu = GPU_ERROR in {kind.__name__ for kind in type(error).__mro__}
    return is_gpu or is_out_of_memory(error) or any(words in str(error) for words in GPU_WORDS)


def is_final(error: Exception) -> bool:
    """Whether another start would meet the error again: of this library's those that no passing trouble caused."""
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__:
        chain.append(cause)
    passing = any(is_system(e) or isinstance(e, OSError) and e.errno in PASSING for e in chain)
    return isinstance(error, TTTError) and not passing
