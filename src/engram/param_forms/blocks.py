"""What all forms are made of: a block, and numbers and words within bounds."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0, strict=True)]
Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Horizon = Annotated[float, Field(ge=1)]  # steps
# no dot: DVC takes it for a level, as in experiments.<name>
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Block(BaseModel):
    """A block of `params.yaml`: unknown keys and values of another kind are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class NoArguments(Block):
    """A block that must be empty: `{}`."""
