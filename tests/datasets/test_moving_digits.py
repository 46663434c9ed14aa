"""Moving digits keep their numbers, move as told, and share no image between parts."""

import hashlib
import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

from engram import datasets
from engram.datasets import moving_digits
from engram.datasets.moving_digits import (
    CANVAS,
    DIGIT,
    FRAMES,
    GRID,
    IMAGES,
    SPEED,
    WALL,
    Bits,
    draw,
    film,
    fold,
    interpolation,
    paths,
)

ONE_DOT = np.zeros((2, DIGIT, DIGIT), np.int64)
ONE_DOT[0, 3, 5] = 16


def test_the_numbers_are_those_of_every_other_machine():
    assert moving_digits.checksum() == moving_digits.CHECKSUM


def test_another_checksum_stops_the_fetch(monkeypatch, tmp_path):
    monkeypatch.setattr(moving_digits, "CHECKSUM", "0" * 64)
    with pytest.raises(ValueError, match="Expected sha256 0000"):
        datasets.fetch("moving_digits", tmp_path / "raw", file="", clips=5)
    assert not (tmp_path / "raw").exists()


def test_a_path_is_a_bouncing_ball_moved_step_by_step():
    """The position integrates the velocity; a wall turns the velocity round."""
    bits, clips = Bits(7), 50
    path = paths(bits, clips)  # (B, T, 2, 2)
    assert path.shape == (clips, FRAMES, 2, 2)
    bounces = 0
    for one in path.transpose(0, 2, 3, 1).reshape(-1, FRAMES):
        speeds = set(np.abs(np.diff(one)).tolist())
        speed = max(speeds)  # between two walls it is all of a step
        assert SPEED[0] <= speed <= SPEED[1]
        moved = _bounced(one[0], one[1] - one[0], speed)
        other = _bounced(one[0], speed, speed), _bounced(one[0], -speed, speed)
        assert one.tolist() in (moved, *other)
        bounces += int((np.abs(np.diff(np.sign(np.diff(one)))) == 2).sum())
    assert bounces > clips


def _bounced(position, first_step, speed):
    """Moves unit by unit; at a wall the direction turns."""
    found, direction = [int(position)], 1 if first_step > 0 else -1
    for _ in range(FRAMES - 1):
        for _ in range(speed):
            if not 0 <= position + direction <= WALL:
                direction = -direction
            position += direction
        found.append(int(position))
    return found


def test_between_walls_a_digit_moves_straight_on():
    time = np.arange(10)
    np.testing.assert_array_equal(fold(20 + 16 * time), 20 + 16 * time)
    np.testing.assert_array_equal(fold(200 - 16 * time), 200 - 16 * time)


def test_a_wall_reflects():
    assert fold(np.array([WALL - 5, WALL, WALL + 5])).tolist() == [
        WALL - 5,
        WALL,
        WALL - 5,
    ]
    assert fold(np.array([5, 0, -5])).tolist() == [5, 0, 5]
    assert fold(np.arange(-9 * WALL, 9 * WALL)).min() == 0
    assert fold(np.arange(-9 * WALL, 9 * WALL)).max() == WALL


def test_a_digit_at_a_whole_pixel_is_the_image_itself():
    images = load_digits().images[:2].astype(np.int64)
    path = np.array([[[3, 4], [9, 15]]]) * GRID  # (1, 2, 2)
    (frame,) = draw(images, path)
    expected = np.zeros((CANVAS, CANVAS), np.int64)
    expected[3:11, 4:12] = images[0]
    expected[9:17, 15:23] = np.maximum(expected[9:17, 15:23], images[1])
    np.testing.assert_array_equal(frame, expected * 255 // 16)


def test_where_digits_overlap_the_brighter_one_is_seen():
    images = load_digits().images[[3, 8]].astype(np.int64)
    same = np.full((1, 2, 2), 100)
    alone = [draw(np.stack([one, one]), same)[0] for one in images]
    both = draw(images, same)[0]
    np.testing.assert_array_equal(both, np.maximum(*alone))
    assert np.any(both != alone[0]) and np.any(both != alone[1])


def test_a_dot_between_pixels_is_shared_by_its_neighbours():
    quarter = GRID // 4
    path = np.zeros((1, 2, 2), np.int64)
    path[0, 0] = [7 * GRID + quarter, 2 * GRID]  # a quarter of a pixel further down
    (frame,) = draw(ONE_DOT, path)
    assert (frame[10, 7], frame[11, 7]) == (255 * 3 // 4, 255 // 4)
    assert np.count_nonzero(frame) == 2


@pytest.mark.parametrize("position", [0, 1, 100, 255, WALL])
def test_interpolation_loses_no_ink(position):
    shares = interpolation(np.array(position))
    assert shares.shape == (CANVAS, DIGIT)
    np.testing.assert_array_equal(shares.sum(axis=0), GRID)
    centre = (np.arange(CANVAS) @ shares).astype(float) / GRID
    np.testing.assert_allclose(centre, np.arange(DIGIT) + position / GRID)


def test_no_image_of_a_digit_is_in_two_parts():
    used = {part: set(film(part, 400)[2].ravel().tolist()) for part in IMAGES}
    for part, (start, end) in IMAGES.items():
        assert used[part] <= set(range(start, end))
        assert len(used[part]) > 0.5 * (end - start)
    assert sum(len(one) for one in used.values()) == len(set.union(*used.values()))
    images = load_digits().data
    assert len(np.unique(images, axis=0)) == len(images)  # nor an equal image


def test_every_image_belongs_to_a_part():
    ends = [end for _, end in IMAGES.values()]
    assert [start for start, _ in IMAGES.values()] == [0, *ends[:-1]]
    assert ends[-1] == len(load_digits().data)


def test_neighbours_in_the_file_tend_to_be_by_one_hand():
    """So parts that are pieces of the file have few writers in common."""
    pixels, labels = load_digits(return_X_y=True)
    apart = []
    for digit in range(10):
        (where,) = np.nonzero(labels == digit)
        one = pixels[where]
        distance = ((one[:, None] - one) ** 2).sum(-1)
        np.fill_diagonal(distance, np.inf)
        apart += np.abs(where[distance.argmin(axis=1)] - where).tolist()
    assert np.median(apart) < 100  # of 1797; about 500 in a shuffled file


def test_labels_tell_what_the_images_are():
    _, labels, which = film("test", 20)
    np.testing.assert_array_equal(labels, load_digits().target[which])


def test_clips_differ_and_the_first_do_not_depend_on_how_many_there_are():
    few, many = film("train", 5), film("train", 30)
    for some, all_of_them in zip(few, many, strict=True):
        np.testing.assert_array_equal(some, all_of_them[:5])
    digests = {hashlib.sha256(clip.tobytes()).hexdigest() for clip in many[0]}
    assert len(digests) == 30
    assert not np.array_equal(film("validation", 5)[0], few[0])


def test_the_clips_of_the_tour_are_drawn_in_five_seconds(tmp_path):
    begin = time.process_time()
    for part, clips in {"train": 720, "validation": 240, "test": 240}.items():
        film(part, clips)
    assert time.process_time() - begin < 5


def test_fetched_clips_are_the_drawn_ones_in_three_parts(tmp_path):
    import tensorflow_datasets as tfds

    datasets.fetch("moving_digits", tmp_path / "raw", file="", clips=10)
    builder = tfds.builder_from_directory(tmp_path / "raw")
    assert builder.info.metadata["white"] == 255
    sizes = {"train": 6, "validation": 2, "test": 2}
    assert {part: len(builder.as_data_source(split=part)) for part in sizes} == sizes
    for part, clips in sizes.items():
        frames, labels, which = film(part, clips)
        for n, example in enumerate(builder.as_data_source(split=part)):
            assert example["frames"].dtype == np.uint8
            np.testing.assert_array_equal(example["frames"], frames[n])
            np.testing.assert_array_equal(example["labels"], labels[n])
            np.testing.assert_array_equal(example["images"], which[n])


@pytest.mark.parametrize("clips", [0, 4, 7, -5])
def test_a_number_of_clips_that_has_no_fifths_is_refused(clips, tmp_path):
    with pytest.raises(ValueError, match=f"`clips` .* Received: {clips}"):
        datasets.fetch("moving_digits", tmp_path / "raw", file="", clips=clips)


def test_tfds_loads_it_by_name(tmp_path):
    import tensorflow_datasets as tfds

    loaded = tfds.load(
        "moving_digits", split="test", data_dir=tmp_path, builder_kwargs={"clips": 5}
    )
    (example,) = loaded.as_numpy_iterator()
    np.testing.assert_array_equal(example["frames"], film("test", 1)[0][0])
