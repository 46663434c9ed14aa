"""An epoch of contrastive divergence: all its updates in one loop, to be compiled.

The model's rows come from

    "cd"      k Gibbs steps from the rows of the batch                   (Hinton 2002)
    "pcd"     k Gibbs steps of chains that live on from update to update (Tieleman 2008)
    "exact"   all 2^V visible rows with their probabilities, for a small V

and an update with momentum `m`, learning rate `r`, weight decay `d` and sparsity cost `s`
is

    velocity = m * velocity + r * gradient    dW less d W, dc plus s (target - < p >_data)
    weights  = weights + velocity

In each function `how` has the settings: a `ContrastiveDivergence`.
"""

import tensorflow as tf

from engram.layers.rbm import draws, energy
from engram.layers.rbm.enumeration import all_rows
from engram.layers.rbm.gradient import difference, mean, recentred

DRAWS = 2**20  # numbers of draws that belong to an update, whatever its `k`
RECENTRE = 10  # updates from one move of the offsets to the next: it reads W twice
LANES = 16  # hidden units are filled up to a multiple: products of odd rows are slower
NEVER = -1e4  # hidden bias of a unit that is never on


def epoch(
    how,
    rows,
    order,
    counted,
    first,
    rate,
    momentum,
    weights,
    velocity,
    living,
    k,
    chances,
):
    """Returns weights, velocities and chains after the updates that `order` lists.

    Args:
        how: the settings.
        rows: `(N, V)`.
        order: `(updates, B)`, which rows an update takes.
        counted: `(updates, B)`, 1 where they count, else 0.
        first: how many updates there were before.
        rate: learning rate.
        momentum: momentum, or None for none.
        weights: those of `energy.Weights` that there are.
        velocity: those of `learned`; empty without momentum.
        living: `(chains, L)`, hidden units of the chains; empty if none live on.
        k: int, Gibbs steps of an update.
        chances: bool, whether values of rows are chances to draw from.
    """
    hidden = weights[0].shape[1]
    lanes = -(-hidden // LANES) * LANES
    weights = resized(weights, lanes)
    velocity = resized_velocity(velocity, lanes)
    living = units(living, lanes) if how.method == "pcd" else living
    w = energy.Weights(*weights)
    states = all_rows(rows.shape[1], rows.dtype) if how.method == "exact" else None

    def update(t, weights, velocity, living, means):
        v, counts = tf.gather(rows, order[t]), counted[t]
        w, number = energy.Weights(*weights), first + tf.cast(t, tf.int64)
        if chances:  # the draw before those of the next update
            last = (number + 1) * DRAWS - 1
            u = draws.uniform(v.shape, how.seed, last, how.jit_compile, v.dtype)
            v = tf.cast(u < v, v.dtype)
        shares = counts / tf.reduce_sum(counts)  # (B,), each row's weight in a mean
        slope, data, living = gradient(how, w, v, shares, living, states, number, k)
        w, velocity = step(how, w, slope, data, velocity, rate, momentum)
        if how.centred:
            means = [
                old + how.offset_rate * (new - old)
                for old, new in zip(means, data, strict=True)
            ]
            due = tf.equal((t + 1) % RECENTRE, 0)
            moved = tf.cond(  # W, which stays as it is, would be copied
                due,
                lambda: recentred(w, *means)._replace(kernel=None),
                lambda: w._replace(kernel=None),
            )
            w = moved._replace(kernel=w.kernel)
        return t + 1, present(w), velocity, living, means

    updates = order.shape[0]
    _, weights, velocity, living, means = tf.while_loop(
        lambda t, *_: t < updates,
        update,
        (0, weights, velocity, living, [w.visible_offset, w.hidden_offset]),
        maximum_iterations=updates,
    )
    w = energy.Weights(*weights)
    w = recentred(w, *means) if how.centred else w
    velocity = resized_velocity(velocity, hidden)
    living = units(living, hidden) if how.method == "pcd" else living
    return resized(present(w), hidden), velocity, living


def step(how, w, slope, data, velocity, rate, momentum):
    """Returns weights and velocities after one update."""
    of_kernel, of_visible, of_hidden, *of_variance = slope
    _, mean_h = data
    if how.weight_decay:
        of_kernel -= how.weight_decay * w.kernel
    if how.sparsity_target is not None:
        of_hidden += how.sparsity_cost * (how.sparsity_target - mean_h)
    moves = [rate * one for one in (of_kernel, of_visible, of_hidden, *of_variance)]
    if momentum is not None:
        moves = [momentum * a + b for a, b in zip(velocity, moves, strict=True)]
        velocity = moves
    kernel, b, c, *log_variance = [a + b for a, b in zip(learned(w), moves, strict=True)]
    offsets = w.visible_offset, w.hidden_offset
    return energy.Weights(kernel, b, c, *offsets, *log_variance), velocity


def gradient(how, w, v, shares, living, states, number, k):
    """Returns the gradients, means of `v` and `p(h|v)`, and the chains' new ends."""
    if how.replicas == 1:
        return phases(how, w, v, shares, living, states, number, k, 0)
    strategy = how.strategy
    replicas = strategy.experimental_distribute_values_from_function(
        lambda context: context.replica_id_in_sync_group
    )
    *sums, living = strategy.run(
        phases, (how, w, v, shares, living, states, number, k, replicas)
    )
    slope, data = tf.nest.map_structure(
        lambda one: strategy.reduce("SUM", one, axis=None), sums
    )
    return slope, data, tf.concat(strategy.experimental_local_results(living), 0)


def phases(how, w, v, shares, living, states, number, k, replica):
    """Returns one replica's part of: gradients, data means, chains."""
    draw = _Draws(how, v.dtype, number, replica)
    v, shares = draw.part(v), draw.part(shares)
    p = tf.sigmoid(energy.hidden_logits(w, v))
    data = v, p, shares
    means = [mean(v, shares), mean(p, shares)]
    if how.method == "exact":
        p_states = tf.sigmoid(energy.hidden_logits(w, states))
        chance = tf.nn.softmax(-energy.free_energy(w, states))
        model = states, p_states, chance / how.replicas
        return difference(w, data, model), means, living
    if how.method == "cd":
        h, count = draw.ones(p, how.batch_size), how.batch_size
    else:
        h, count = draw.part(living), how.chains
        shares = tf.fill(h.shape[:1], tf.cast(1 / count, v.dtype))
    for _ in range(k):
        mean_v = energy.visible_mean(w, h)
        if w.log_variance is None:
            v = draw.ones(mean_v, count)
        else:
            v = mean_v + tf.exp(w.log_variance / 2) * draw.normal(mean_v, count)
        p = tf.sigmoid(energy.hidden_logits(w, v))
        h = draw.ones(p, count)
    if w.log_variance is None and not how.sample_visible:
        v = mean_v  # the chains go on from what was drawn
        p = tf.sigmoid(energy.hidden_logits(w, v))
    slope = difference(w, data, (v, p, shares))
    return slope, means, h if how.method == "pcd" else living


class _Draws:
    """The random numbers of one update: the same, however many replicas share them.

    Each draw is made for all rows; a replica takes those of its own rows.
    """

    def __init__(self, how, dtype, number, replica):
        self._how, self._dtype, self._replica = how, dtype, replica
        self._next = number * DRAWS

    def part(self, rows):
        """Returns this replica's share of rows."""
        if self._how.replicas == 1:
            return rows
        size = rows.shape[0] // self._how.replicas
        return tf.slice(
            rows,
            [self._replica * size, *[0] * (len(rows.shape) - 1)],
            [size, *rows.shape[1:]],
        )

    def ones(self, chances, count):
        """Returns 1 with the chances given, else 0; for one of `count` rows each."""
        return tf.cast(self._uniform(chances, count) < chances, self._dtype)

    def normal(self, like, count):
        """Returns standard normal numbers, for one of `count` rows each."""
        return draws.normal(self._uniform(like, count), self._uniform(like, count))

    def _uniform(self, like, count):
        shape = (count, like.shape[1])
        how = self._how
        drawn = draws.uniform(shape, how.seed, self._next, how.jit_compile, self._dtype)
        self._next += 1
        return self.part(drawn)


def resized(weights, hidden):
    """Returns the weights of the first `hidden` units, filled up with units never on."""
    kernel, b, c, mu, lambda_, *rest = weights
    c, lambda_ = units(c, hidden, NEVER), units(lambda_, hidden)
    return [units(kernel, hidden), b, c, mu, lambda_, *rest]


def resized_velocity(velocity, hidden):
    """Returns the velocities of the first `hidden` units, filled up with zeros."""
    if not velocity:
        return velocity
    kernel, b, c, *rest = velocity
    return [units(kernel, hidden), b, units(c, hidden), *rest]


def units(one, hidden, value=0.0):
    """Returns the first `hidden` of the last axis, filled up with `value` if too few."""
    one = one[..., :hidden]
    spare = [[0, 0]] * (len(one.shape) - 1) + [[0, hidden - one.shape[-1]]]
    return tf.pad(one, spare, constant_values=tf.cast(value, one.dtype))


def learned(w) -> list:
    """Returns W, b, c and, of Gaussian units, log sigma^2."""
    return present((w.kernel, w.visible_bias, w.hidden_bias, w.log_variance))


def present(weights) -> list:
    """Returns the weights that there are."""
    return [one for one in weights if one is not None]
