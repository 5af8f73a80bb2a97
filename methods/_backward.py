"""Other gradients for a while: torch's functions are exchanged as they are called.

The classifier's modules stay untouched, whether they call a function by themselves or have it
called by a layer, and nothing has to be undone. Imports torch: to be used through `lazy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

Rule = Callable[..., Any]  # rule(function, *args, **kwargs) is called in the function's place


class Exchanged(TorchFunctionMode):
    """Within this context, calls of the functions in `rules` go to their rule.

    What a rule itself calls is not exchanged.
    """

    def __init__(self, rules: Mapping[Callable, Rule]) -> None:
        super().__init__()
        self.rules = rules

    def __torch_function__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = self.rules.get(function)
        if rule is None:
            return function(*args, **kwargs)
        return rule(function, *args, **kwargs)
