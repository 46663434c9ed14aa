"""RBM: a density over rows of zeros and ones, trained by contrastive divergence."""

from typing import Any

import keras
import numpy as np

from engram.layers.rbm.rbm import RBM
from engram.models.density import all_rows, inputs

CHEAP = 2**26  # states times units whose log Z takes a fraction of a second
SEEN = 1000  # rows of each part that are looked at after an epoch


@keras.saving.register_keras_serializable(package="engram")
class Density(keras.Model):
    """A model around one `RBM`, whose `fit` is contrastive divergence."""

    how: dict[str, Any] = {}  # of `ContrastiveDivergence`
    trainer: Any = None  # a `ContrastiveDivergence`, while it trains
    _taken: dict[str, np.ndarray] | None = None  # state to begin with

    @property
    def rbm(self) -> RBM:
        """The layer."""
        return self.get_layer("rbm")

    @property
    def cheap(self) -> bool:
        """Whether log Z is enumerated in a fraction of a second, and losses are exact."""
        from engram.layers.rbm import enumeration

        small, large = sorted(self.rbm.kernel.shape)
        return small <= enumeration.LIMIT and 2**small * large <= CHEAP

    def fit(self, x=None, validation_data=None, epochs=1, callbacks=None, **kwargs):
        """Trains, and reports to callbacks after each epoch.

        The loss is minus the log-likelihood of a row where log Z is cheap to enumerate,
        else minus its pseudo-likelihood. The learning rate is that of the schedule at the
        first step of each epoch. It goes on from a state that was taken.
        """
        from engram.layers.rbm.contrastive_divergence import ContrastiveDivergence

        rows = all_rows(x)
        held = None if validation_data is None else all_rows(validation_data)
        updates, batch_size = int(x.cardinality()), len(next(iter(x)))
        schedule = self.optimizer._learning_rate
        self.rbm.adapt(rows, self.how["centred"])
        self.trainer = ContrastiveDivergence(
            self.rbm,
            batch_size=batch_size,
            learning_rate=lambda epoch: float(schedule(epoch * updates)),
            seed=int(keras.random.randint((), 0, 2**31 - 1)),
            jit_compile=bool(self.jit_compile),
            **self.how,
        )
        if self._taken:
            self.trainer.take(self._taken)
        calls = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=self, epochs=epochs, verbose=0
        )

        def tell(_, done):  # once the rows are checked, after each epoch
            seen = self._look(rows, held)
            calls.on_epoch_end(done - 1, seen)
            if done < epochs:
                calls.on_epoch_begin(done)
            return seen

        calls.on_train_begin()
        calls.on_epoch_begin(self.trainer.epoch)
        self.trainer.fit(rows, epochs, tell)
        calls.on_train_end()
        return self.history

    def training_state(self) -> dict[str, np.ndarray]:
        """Returns what `fit` needs to go on, besides the weights."""
        return self.trainer.state()

    def take_state(self, state: dict[str, np.ndarray]) -> None:
        """Lets the next `fit` go on where `training_state` was called."""
        self._taken = state

    def log_likelihood(self, rows, train) -> dict[str, np.ndarray]:
        """Returns `forward` and `backward` log p of each row `(B,)`, equal if exact.

        Args:
            rows: array `(B, V)`.
            train: array `(N, V)`, rows that annealing may start from.
        """
        from engram.layers.rbm import annealing, enumeration

        if min(self.rbm.kernel.shape) <= enumeration.LIMIT:
            exact = enumeration.log_likelihood(self.rbm, rows)
            return {"forward": exact, "backward": exact}
        return {
            name: enumeration.log_likelihood(
                self.rbm, rows, one(self.rbm, train).estimate
            )
            for name, one in (
                ("forward", annealing.forward),
                ("backward", annealing.backward),
            )
        }

    def _look(self, rows, held) -> dict[str, float]:
        """Returns the losses and what else is seen after an epoch."""
        from engram.layers.rbm import monitor

        log_z = monitor.log_partition(self.rbm) if self.cheap else None
        seen = {"loss": self._loss(rows, log_z)}
        if held is not None:
            seen["val_loss"] = self._loss(held, log_z)
            seen["reconstruction"] = monitor.reconstruction(self.rbm, held[:SEEN])
            seen["free_energy_gap"] = monitor.free_energy_gap(
                self.rbm, rows[:SEEN], held[:SEEN]
            )
        return seen

    def _loss(self, rows, log_z: float | None) -> float:
        """Returns minus the log-likelihood of a row, or the pseudo one without log Z."""
        from engram.layers.rbm import enumeration, monitor

        if log_z is not None:
            rows = rows[:SEEN]
            return -float(enumeration.log_likelihood(self.rbm, rows, log_z).mean())
        seen = rows[: monitor.FLIPPED]
        return -float(monitor.pseudo_likelihood(self.rbm, seen).mean())


def build(
    spec,
    learning_rate,
    units,
    method,
    k,
    passes,
    momentum,
    weight_decay,
    centred,
):
    """Returns the model; its `fit` is `pretraining.ContrastiveDivergence`.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: int, hidden units.
        method: `"cd"`, `"pcd"` or `"exact"`.
        k: int, Gibbs steps of an update.
        passes: int, how often an epoch goes through the rows.
        momentum: float in [0, 1).
        weight_decay: float, of the kernel.
        centred: bool, whether offsets follow the means of the data.
    """
    row = inputs(spec)
    rbm = RBM(units, seed=int(keras.random.randint((), 0, 2**31 - 1)), name="rbm")
    model = Density(row, rbm(row), name="rbm_density")
    model.how = {
        "method": method,
        "k": k,
        "passes": passes,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "centred": centred,
    }
    model.compile(optimizer=keras.optimizers.SGD(learning_rate))
    return model
