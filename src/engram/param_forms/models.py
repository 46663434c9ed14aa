"""Forms of an experiment's `args`, by its model."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engram.param_forms.blocks import Block, Horizon, NoArguments, Positive


class Ridge(Block):
    """Arguments of `models/ridge.py`."""

    alpha: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]


class Mlp(Block):
    """Arguments of `models/mlp.py`."""

    units: Positive


class Recurrent(Block):
    """Arguments of `models/{simple_rnn,gru,lstm}.py`."""

    units: Positive


class ChronoLstm(Block):
    """Arguments of `models/chrono_lstm.py`."""

    units: Positive
    horizon: Horizon


class Stlm(Block):
    """Arguments of `models/stlm.py`."""

    units: Positive
    combine: Literal["concat", "sum", "weighted"]
    short_horizon: Horizon
    long_horizon: Horizon


class ParallelStlm(Stlm):
    """Arguments of `models/parallel_stlm.py`."""

    depth: Positive


class ConvLstm(Block):
    """Arguments of `models/conv_lstm.py`."""

    filters: Positive
    kernel_size: Positive


class Rbm(Block):
    """Arguments of `models/rbm.py`."""

    units: Positive
    method: Literal["cd", "pcd", "exact"]
    k: Positive
    passes: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    centred: bool


class ConvStlm(ConvLstm):
    """Arguments of `models/conv_stlm.py`."""

    combine: Literal["concat", "sum", "weighted"]
    short_horizon: Horizon
    long_horizon: Horizon


class DeepNet(Block):
    """Arguments of `models/deep_net.py`."""

    units: Annotated[list[Positive], Field(min_length=1)]
    activation: Literal["sigmoid", "tanh", "relu"]
    optimizer: Literal["sgd", "adam"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    hidden_rate: Annotated[float, Field(gt=0, le=1)]
    logits: Literal["glorot_uniform", "zeros"]


class Remedies(Block):
    """What a very deep net is made of, at any depth."""

    activation: Literal[
        "linear", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "selu"
    ]
    initializer: Literal["glorot_uniform", "he_normal", "lecun_normal", "orthogonal"]
    norm: Literal["none", "batch", "layer"]
    path: Literal["none", "residual", "scaled", "rezero", "highway"]
    clipnorm: Annotated[float, Field(gt=0)] | None
    global_clipnorm: Annotated[float, Field(gt=0)] | None

    @model_validator(mode="after")
    def _clips_once(self) -> "Remedies":
        if self.clipnorm and self.global_clipnorm:
            raise ValueError(
                "either clipnorm or global_clipnorm must be null. Received:"
                f" {self.clipnorm} and {self.global_clipnorm}"
            )
        return self


class VeryDeepNet(Remedies):
    """Arguments of `models/very_deep_net.py`."""

    depth: Annotated[int, Field(ge=0)]
    width: Positive
    optimizer: Literal["sgd", "adam"]


class Cnn(Block):
    """Arguments of `models/cnn.py`."""

    filters: Annotated[list[Positive], Field(min_length=1)]
    kernel_size: Positive
    units: Positive
    flip: bool
    shift: Annotated[float, Field(ge=0, lt=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    optimizer: Literal["sgd", "adam"]


class ResidualCnn(Block):
    """Arguments of `models/residual_cnn.py`."""

    filters: Annotated[list[Positive], Field(min_length=1)]
    blocks: Positive
    flip: bool
    shift: Annotated[float, Field(ge=0, lt=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    optimizer: Literal["sgd", "adam"]


class Pca(Block):
    """Arguments of `models/pca.py`."""

    units: Positive


class DeepAutoencoder(Block):
    """Arguments of `models/deep_autoencoder.py`."""

    units: Annotated[list[Positive], Field(min_length=1)]
    code: Positive
    optimizer: Literal["sgd", "adam"]


class MlpGan(Block):
    """Arguments of `models/mlp_gan.py`."""

    latent: Positive
    generator: Annotated[list[Positive], Field(min_length=1)]
    discriminator: Annotated[list[Positive], Field(min_length=1)]
    pieces: Annotated[int, Field(ge=2, strict=True)]
    game: Literal["minimax", "nonsaturating"]
    packing: Positive
    d_steps: Positive
    average: Annotated[float, Field(ge=0, lt=1)]
    penalty: Annotated[float, Field(ge=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    stddev: Annotated[float, Field(gt=0)] | None


class Dcgan(Block):
    """Arguments of `models/dcgan.py`."""

    latent: Positive
    filters: Annotated[list[Positive], Field(min_length=1)]
    kernel_size: Annotated[int, Field(ge=2, strict=True)]
    norm: Literal["none", "batch", "spectral"]
    game: Literal["minimax", "nonsaturating"]
    packing: Positive
    d_steps: Positive
    average: Annotated[float, Field(ge=0, lt=1)]
    penalty: Annotated[float, Field(ge=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]


class Translation(Block):
    """Arguments that all models of translation share (`models/translation.py`)."""

    width: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    smoothing: Annotated[float, Field(ge=0, lt=1)]
    beam: Positive
    length_penalty: Annotated[float, Field(ge=0)]


class Transformer(Translation):
    """Arguments of `models/transformer.py`."""

    depth: Positive
    heads: Positive
    feedforward: Positive
    norm: Literal["post", "pre"]


class Seq2Seq(Translation):
    """Arguments of `models/seq2seq.py`."""

    cell: Literal["simple_rnn", "gru", "lstm", "stlm"]
    attention: Literal["none", "bahdanau", "luong"]
    units: Positive
    own_words: Annotated[float, Field(ge=0, lt=1)]


MODELS: dict[str, type[Block]] = {
    "persistence": NoArguments,
    "historical_average": NoArguments,
    "ridge": Ridge,
    "mlp": Mlp,
    "simple_rnn": Recurrent,
    "gru": Recurrent,
    "lstm": Recurrent,
    "chrono_lstm": ChronoLstm,
    "stlm": Stlm,
    "parallel_stlm": ParallelStlm,
    "last_frame": NoArguments,
    "conv_lstm": ConvLstm,
    "conv_stlm": ConvStlm,
    "deep_net": DeepNet,
    "very_deep_net": VeryDeepNet,
    "cnn": Cnn,
    "residual_cnn": ResidualCnn,
    "rbm": Rbm,
    "pca": Pca,
    "deep_autoencoder": DeepAutoencoder,
    "transformer": Transformer,
    "seq2seq": Seq2Seq,
    "mlp_gan": MlpGan,
    "dcgan": Dcgan,
}
