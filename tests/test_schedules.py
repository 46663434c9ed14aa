"""Schedules follow their equations and come back from their configs."""

import math

import keras
import pytest

from engram import schedules


def test_without_a_warm_up_the_rate_is_keras_own_cosine():
    falling = schedules.schedule("cosine", 0.5, steps=100, warmup=0)
    assert type(falling) is keras.optimizers.schedules.CosineDecay
    for step in (0, 25, 100):
        wanted = 0.5 * (1 + math.cos(math.pi * step / 100)) / 2
        assert float(falling(step)) == pytest.approx(wanted, abs=1e-7)


def test_a_warmed_up_rate_rises_and_then_follows_its_schedule():
    cosine = keras.optimizers.schedules.CosineDecay(0.5, 100)
    warmed = schedules.schedule("cosine", 0.5, steps=100, warmup=10)
    for step, share in ((0, 0.1), (4, 0.5), (9, 1), (50, 1)):
        wanted = share * float(cosine(step))
        assert float(warmed(step)) == pytest.approx(wanted, rel=1e-6)


def test_the_inverse_root_is_that_of_vaswani():
    width, warmup = 128, 2000
    rate = (width * warmup) ** -0.5  # the highest of eq. 3
    ours = schedules.schedule("inverse_sqrt", rate, steps=8000, warmup=warmup)
    for step in (1, 10, 1999, 2000, 2001, 8000):  # counted from 1 there
        wanted = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert float(ours(step - 1)) == pytest.approx(wanted, rel=1e-5)


def test_another_word_or_no_warm_up_where_one_is_needed_is_refused():
    with pytest.raises(ValueError, match="`decay` must be .* Received: 'linear'"):
        schedules.schedule("linear", 0.1, steps=10, warmup=0)
    with pytest.raises(ValueError, match="`steps` must be at least 1. Received: 0"):
        schedules.schedule("inverse_sqrt", 0.1, steps=10, warmup=0)


@pytest.mark.parametrize("decay", ["cosine", "inverse_sqrt"])
def test_a_schedule_comes_back_from_its_config(decay):
    first = schedules.schedule(decay, 0.3, steps=100, warmup=7)
    kept = keras.saving.serialize_keras_object(first)
    again = keras.saving.deserialize_keras_object(kept)
    for step in (0, 3, 20, 90):
        assert float(again(step)) == pytest.approx(float(first(step)), rel=1e-6)
