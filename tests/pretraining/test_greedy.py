"""A stack learns from the bottom up, each RBM on what the one below says."""

import numpy as np
import pytest
import rbm_equations as equations
from rbm_stack import draw_rows, stack, upwards

from engram.layers.rbm.linear_code import LinearCode
from engram.pretraining import greedy


def test_each_rbm_is_trained_once_on_what_the_trained_one_below_says(monkeypatch):
    rbms, rows = stack(), draw_rows()
    seen, computed = [], []

    def train(rbm, rows):
        seen.append((rbm, rows))
        rbm.hidden_bias.assign(rbm.hidden_bias + 1)  # it learns
        return {"epoch": [len(seen)]}

    real = greedy.upwards
    monkeypatch.setattr(
        greedy, "upwards", lambda rbm, rows: computed.append(rbm) or real(rbm, rows)
    )
    histories = greedy.pretrain(rbms, rows, train)
    assert histories == [{"epoch": [1]}, {"epoch": [2]}, {"epoch": [3]}]
    assert [rbm for rbm, _ in seen] == rbms
    assert computed == rbms[:2]  # each once, the top one never
    expected = [rows, *upwards(rbms[:2], rows)]
    for (_, given), wanted in zip(seen, expected, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-6)


def test_many_rows_go_upwards_in_pieces(monkeypatch):
    (rbm, *_), rows = stack(), draw_rows(rows=20)
    whole = greedy.upwards(rbm, rows)
    assert whole.shape == (20, 5) and whole.dtype == np.float32
    monkeypatch.setattr(greedy, "ROWS", 7)
    # Products of fewer rows may be summed in another order.
    rounding = 4 * np.finfo(np.float32).eps
    np.testing.assert_allclose(greedy.upwards(rbm, rows), whole, rtol=0, atol=rounding)
    np.testing.assert_allclose(whole, rbm(rows), rtol=0, atol=rounding)


def test_a_rate_falls_along_a_half_cosine_to_its_last_share():
    assert [greedy.falling(share, 0.0) for share in (0, 1)] == [1, 0]
    assert greedy.falling(0.5, 0.2) == pytest.approx(0.6)
    assert greedy.falling(1 / 3, 0.2) == pytest.approx(0.2 + 0.8 * 0.75)
    assert [greedy.falling(share, 1.0) for share in (0, 0.3, 1)] == [1, 1, 1]


def test_a_stack_learns_at_the_rate_that_falls_to_its_last_share():
    rows = draw_rows("bernoulli", 60)

    def kernel(last_rate, learning_rate=0.5):
        stack, _ = greedy.train_stack(
            rows,
            rows,
            units=[4],
            visible="bernoulli",
            epochs=2,
            learning_rate=learning_rate,
            last_rate=last_rate,
            seed=3,
            record=lambda *_: None,
            batch_size=5,
            momentum=0.0,
            jit_compile=False,
        )
        return np.asarray(stack.layers[0].kernel)

    assert np.abs(kernel(1.0) - kernel(0.0)).max() > 1e-4
    np.testing.assert_array_equal(kernel(1.0), kernel(1.0))


def test_a_stack_is_trained_and_told_of_from_its_lowest_rbm_up():
    rows, held = draw_rows("gaussian", 60), draw_rows("gaussian", 80)[60:]
    told = []
    stack, histories = greedy.train_stack(
        rows,
        held,
        units=[5, 4],
        visible="gaussian",
        epochs=4,
        learning_rate=0.05,
        seed=3,
        record=lambda numbers, epoch: told.append((numbers, epoch)),
        look_every=2,
        batch_size=20,
        sample_visible=False,
        jit_compile=False,
    )
    first, second = stack.layers
    assert [layer.name for layer in stack.layers] == ["rbm_1", "rbm_2"]
    assert [layer.visible for layer in stack.layers] == ["gaussian", "bernoulli"]
    assert first.seed != second.seed
    *_, wanted = upwards([first, second], held)
    np.testing.assert_allclose(stack(held), wanted, rtol=0, atol=1e-6)
    assert [epoch for _, epoch in told] == [2, 4, 2, 4]
    for k, (numbers, _) in enumerate(told):
        history = histories[k // 2]
        assert history["epoch"] == [1, 2, 3, 4] and history["looked"] == [2, 4]
        name = f"rbm_{1 + k // 2}_"
        assert name + "free_energy_gap" in numbers
        for one, value in numbers.items():
            assert history[one.removeprefix(name)][k % 2] == value
    (below,) = upwards([first], rows)  # what the second one learned
    np.testing.assert_allclose(
        equations.weights(second)["visible_offset"], below.mean(axis=0), atol=1e-3
    )


def _unheard(numbers, epoch):
    """Records nothing."""


def test_stacks_of_equal_seeds_are_alike_and_of_other_seeds_are_not():
    def weights(seed):
        rows = draw_rows(rows=40)
        stack, _ = greedy.train_stack(
            rows, rows, [4, 3], "bernoulli", 1, 0.1, seed, _unheard, jit_compile=False
        )
        return np.concatenate([weight.ravel() for weight in stack.get_weights()])

    np.testing.assert_array_equal(weights(1), weights(1))
    assert np.any(weights(1) != weights(2))


def test_the_learning_rate_of_a_stack_falls_to_zero_along_half_a_cosine(monkeypatch):
    rates = []

    class Trainer(greedy.ContrastiveDivergence):
        def fit(self, *arguments):
            rates.append([self.learning_rate(epoch) for epoch in (0, 5, 10)])
            return super().fit(*arguments)

    monkeypatch.setattr(greedy, "ContrastiveDivergence", Trainer)
    rows = draw_rows(rows=20)
    greedy.train_stack(
        rows, rows, [3], "bernoulli", 10, 0.4, 1, _unheard, jit_compile=False
    )
    np.testing.assert_allclose(rates, [[0.4, 0.2, 0.0]], atol=1e-12)


def _small(rows, **more):
    return greedy.train_stack(
        rows, rows, [4, 3], "bernoulli", 40, 0.5, 1, _unheard, jit_compile=False, **more
    )


def test_a_code_ends_the_stack_with_the_axes_of_what_the_highest_rbm_says():
    rows = draw_rows(rows=200)
    stack, histories = _small(rows, code=2)
    *rbms, top = stack.layers
    assert len(histories) == len(rbms) == 2 and stack.output_shape == (None, 2)
    assert type(top) is LinearCode and top.name == "code"
    *_, said = upwards(rbms, rows)
    np.testing.assert_allclose(top.mean, said.mean(axis=0), rtol=0, atol=1e-6)
    codes = np.asarray(stack(rows))
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-5)
    variances = np.linalg.eigvalsh(np.cov(said.T, bias=True))[::-1][:2]
    np.testing.assert_allclose(codes.var(axis=0), variances, rtol=1e-3)


def test_the_rbms_below_a_code_are_those_of_the_stack_without_one():
    rows = draw_rows(rows=40)
    (plain, wanted), (coded, found) = _small(rows), _small(rows, code=2)
    timeless = [
        {key: values for key, values in one.items() if "second" not in key}
        for one in (*wanted, *found)
    ]
    assert timeless[:2] == timeless[2:]
    assert len(plain.layers) == 2
    for one, other in zip(plain.layers, coded.layers, strict=False):
        for weight, same in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, same)
