"""What goes wrong in the mathematics, in a module that loads nothing.

Whoever has to tell a loss that is not finite from a file of another format asks for the class, not
for its name, and need not load torch for it. `ddpm.config` holds `ConfigError`.
"""


class CheckpointFormatError(ValueError):
    """A folder holds no checkpoint, or not one of this model and this run."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class ImageDatasetError(ValueError):
    """A file is not an array of images as training reads them."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class KernelError(RuntimeError):
    """The kernels cannot be compiled or loaded here."""


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient is not a finite number: the run has diverged."""

    def __init__(self, step: int, loss: float, grad_norm: float) -> None:
        super().__init__(step, loss, grad_norm)
        self.step = step
        self.loss = loss
        self.grad_norm = grad_norm

    def __str__(self) -> str:
        return f"at step {self.step} the loss is {self.loss} and its gradient {self.grad_norm}"


class ForeignModelError(ValueError):
    """A model has no counterpart in the other form, diffusers' or ours."""

    def __init__(self, part: str, problem: str) -> None:
        super().__init__(part, problem)
        self.part = part
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.part}: {self.problem}"
