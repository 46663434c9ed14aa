"""A kept model answers in the data's units what the task's own evaluation computes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import small_models
import toy

from engram import models, params, serving, tasks

TASKS = list(small_models.MODELS)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Of each task what was written, and the folder that `keep` made of it."""
    root = tmp_path_factory.mktemp("kept")
    found = {}
    for task in TASKS:
        file, prepared, about = small_models.write(root / task, task)
        serving.keep(root / task / "served", file, prepared, about)
        found[task] = root / task / "served", file, prepared
    return found


@pytest.fixture
def of(kept):
    """Returns of a task the served model, the model itself, prepared folder and spec."""

    def found(task):
        folder, file, prepared = kept[task]
        model = models.load(small_models.MODELS[task][1], task, file)
        return serving.load(folder), model, prepared, small_models.specification(prepared)

    return found


@pytest.mark.parametrize("task", TASKS)
def test_the_example_is_answered_as_its_fields_say(of, task):
    served, *_ = of(task)
    assert set(served.deviations().values()) == {0.0}
    request, answer = served.example["request"], served.example["answer"]
    rows = {len(values) for values in (*request.values(), *answer.values())}
    assert len(rows) == 1 and rows != {0}
    assert list(request) == [field.name for field in served.given]
    assert list(answer) == [field.name for field in served.answered]
    for field in served.answered:
        for value in answer[field.name]:
            assert isinstance(value, str) == (field.dtype == "text")
            if field.dtype != "text":
                shape = np.shape(value)
                sizes = zip(field.shape, shape, strict=True)
                assert all(size in (-1, n) for size, n in sizes)


@pytest.mark.parametrize("task", TASKS)
def test_another_model_is_told_by_its_answer(kept, tmp_path, task):
    folder, file, prepared = kept[task]
    word = small_models.MODELS[task][1]
    other = models.load(word, task, file)
    for weight in other.weights:
        if weight.dtype.startswith("float"):
            weight.assign(np.asarray(weight)[::-1] if weight.shape else weight + 1)
    other.save(tmp_path / "other.keras")
    about = {"task": task, "model": word, "fitted": "train"}
    changed = serving.keep(tmp_path / "served", tmp_path / "other.keras", prepared, about)
    was = serving.load(folder).example
    assert max(changed._replace(example=was).deviations().values()) > 0


def test_a_model_that_answers_no_number_is_not_kept(kept, tmp_path):
    _, file, prepared = kept["forecasting"]
    broken = models.load("gru", "forecasting", file)
    broken.weights[-1].assign(np.asarray(broken.weights[-1]) * np.nan)
    broken.save(tmp_path / "broken.keras")
    about = {"task": "forecasting", "model": "gru", "fitted": "train"}
    with pytest.raises(ValueError, match="its example with NaN or infinity"):
        serving.keep(tmp_path / "served", tmp_path / "broken.keras", prepared, about)


def test_forecasts_are_those_that_evaluation_scores(of):
    served, model, prepared, spec = of("forecasting")
    task = tasks.task("forecasting")
    past, _, slot = task.windows(prepared, spec, "test")
    assert np.isnan(past).any()
    expected = task._forecasts([model], prepared, spec, "test", 64)[0]
    gaps = np.where(np.isnan(past), None, past)  # as null arrives
    found = served.answer({"readings": gaps.tolist(), "slot": slot})["forecast"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    morning = served.answer({"readings": past, "slot": slot * 0})["forecast"]
    assert not np.allclose(morning, found)


def test_probabilities_are_those_of_the_calibrated_logits(of):
    served, model, prepared, spec = of("classification")
    task = tasks.task("classification")
    found = task.evaluate([model], prepared, "train")
    images, truth = task.arrays(prepared, spec, "test")
    answer = served.answer({"images": np.array(images)})
    scores = found["logits"].astype(np.float64) / found["temperature"]
    odds = np.exp(scores)
    expected = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-4)
    told = expected.argmax(1)
    np.testing.assert_allclose(answer["probability"], expected.max(1), rtol=1e-4)
    assert answer["class"] == [spec["names"][n] for n in told]
    right = [spec["names"].index(one) for one in answer["class"]] == truth
    assert 100 * right.mean() == pytest.approx(found["metrics"]["accuracy"])
    assert found["temperature"] != 1


def test_classes_that_weighed_more_are_told_as_evaluation_tells_them(of, tmp_path):
    _, model, prepared, spec = of("classification")
    from engram.serving import classification
    from engram.tasks.classification_metrics import natural

    weights = np.linspace(0.1, 9, spec["classes"])
    answer = classification.predictor(
        model, spec | {"weights": weights.tolist()}, {"temperature": 2.0}, tmp_path
    )
    images, _ = tasks.task("classification").arrays(prepared, spec, "test")
    images = np.array(images[:5], np.float32)
    logits = model.predict(images / spec["white"], verbose=0)
    odds = np.exp(natural(logits, weights.tolist()) / 2)
    expected = odds / odds.sum(1, keepdims=True)
    found = answer(images)
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-5)
    told = logits.argmax(-1)  # as `classification_metrics.decisions` counts
    assert found["class"] == [spec["names"][n] for n in told]
    np.testing.assert_allclose(found["probability"], expected[range(5), told], rtol=1e-5)
    assert (told != expected.argmax(-1)).any()


def test_a_temperature_is_not_chosen_on_what_was_fitted(of):
    from engram.serving import classification

    _, model, prepared, _ = of("classification")
    found = classification.settled(model, prepared, "train+validation")
    assert found == {"temperature": 1.0}


def test_frames_are_predicted_from_the_models_own(of):
    served, model, prepared, spec = of("video")
    task = tasks.task("video")
    clips = task.clips(prepared, spec, "test")
    expected = task._free_running(model, clips, spec["history"], 64)[..., 0]
    seen = clips[:, : spec["history"], ..., 0] * spec["white"]
    found = served.answer({"frames": seen})["frames"]
    np.testing.assert_allclose(found, expected * spec["white"], rtol=1e-4, atol=1e-3)


def test_log_likelihoods_are_exact_and_free_energies_differ_by_log_z(of):
    served, model, prepared, _ = of("density")
    rows = tasks.task("density").rows(prepared, "test")
    answer = served.answer({"rows": rows})
    exact = model.log_likelihood(rows, rows)["forward"]
    np.testing.assert_allclose(answer["log_likelihood"], exact, rtol=1e-6)
    np.testing.assert_allclose(
        answer["free_energy"], model.rbm.free_energy(rows), rtol=1e-5
    )
    gap = answer["free_energy"] + answer["log_likelihood"]
    np.testing.assert_allclose(gap, gap[0], rtol=1e-6)  # -log Z for every row
    np.testing.assert_allclose(answer["mean"], model.rbm.reconstruct(rows), rtol=1e-5)


def test_a_machine_too_large_to_enumerate_tells_no_log_likelihood(of, tmp_path):
    served, model, prepared, spec = of("density")
    from engram.serving import density

    answer = density.predictor(model, spec, {"log_z": None}, tmp_path)
    rows = tasks.task("density").rows(prepared, "test")[:2]
    assert answer(rows)["log_likelihood"] == [None, None]


def test_a_code_is_that_of_the_layer_and_makes_the_image(of):
    served, model, prepared, spec = of("reconstruction")
    first = spec["parts"]["test"][0]
    rows = np.load(prepared / "rows.npy")[first : first + 3]
    images = rows.reshape(-1, *spec["shape"])
    answer = served.answer({"images": images})
    drawn = model.predict(rows / np.float32(spec["white"]), verbose=0) * spec["white"]
    np.testing.assert_allclose(answer["images"].reshape(drawn.shape), drawn, rtol=1e-5)
    assert answer["code"].shape == (3, toy.ARGUMENTS["deep_autoencoder"]["code"])
    assert np.ptp(answer["code"], axis=0).min() > 0


@pytest.mark.parametrize("read", ["sum", "symbols", "rows"])
def test_of_each_kind_of_sequence_what_it_asks_for(read, tmp_path):
    from engram.serving import sequences

    kinds = tasks.task("sequences").KINDS
    spec = {**kinds[read], "task": "sequences", "history": 5, "features": 3}
    model = models.build("gru", spec, 0.01, units=4)
    small_models.scramble(model)
    steps = np.random.default_rng(1).random((4, 5, 3)).astype(np.float32)
    told = model.predict(steps, verbose=0)
    (found,) = sequences.predictor(model, spec, {}, tmp_path)(steps).values()
    (field,) = sequences.answered(spec)
    assert np.shape(found) == (4, *field.shape)
    expected = told[:, 0] if read == "sum" else told.argmax(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("task", ["generation", "image_generation"])
def test_a_seed_makes_what_it_made_and_another_something_else(of, task):
    served, model, _, spec = of(task)
    (name,) = served.example["answer"]
    scale = spec.get("white", 1)
    one, two, again = served.answer({"count": [2, 3, 3], "seed": [7, 8, 8]})[name]
    assert (len(one), len(two)) == (2, 3)
    np.testing.assert_array_equal(two, again)
    np.testing.assert_allclose(two, scale * np.asarray(model.generate(3, 8)), rtol=1e-5)
    assert not np.allclose(one, two[:2])
    with pytest.raises(serving.Refused, match="`seed` must be whole numbers"):
        served.answer({"count": [1], "seed": [-1]})


def test_translations_are_the_translators_and_no_sentence_is_refused(of):
    from engram import translate

    served, model, prepared, spec = of("translation")
    sentences = ["the cat sleeps", "a dog"]
    translator = translate.TextTranslator(model, *translate.read(prepared))
    found = translator.translated(sentences)
    expected = [one.text for one in found]
    assert all(len(one.target) <= spec["longest_target"] for one in found)
    assert served.answer({"sentence": sentences}) == {"translation": expected}
    with pytest.raises(serving.Refused, match="sentence 2 is empty"):
        served.answer({"sentence": ["a dog", " "]})
    with pytest.raises(serving.Refused, match=r"must be text\. Received: 5"):
        served.answer({"sentence": [5]})


def test_the_command_compares_with_the_answer_in_the_folder(kept, tmp_path):
    folder = kept["density"][0]
    said = check(folder)
    assert said.returncode == 0
    assert said.stdout.splitlines()[0] == "free_energy: 0 from what it was"
    example = json.loads((folder / "example.json").read_text())
    example["answer"]["free_energy"][0] += 0.1
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "example.json").write_text(json.dumps(example))
    assert check(tmp_path).returncode == 1


def check(folder):
    command = [sys.executable, "-m", "engram.serving", str(folder)]
    return toy.call(command, folder, toy.environment(toy.ROOT))


def test_text_without_its_packages_says_what_to_install(kept):
    code = (
        "import sys; sys.modules['sacrebleu'] = None\n"
        "from engram import serving\n"
        "served = serving.load(sys.argv[1])\n"
        "try: served.answer({'sentence': ['a dog']})\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(kept["translation"][0])]
    done = toy.call(command, toy.ROOT, toy.environment(toy.ROOT))
    assert "needs sacrebleu, of Engram's extra `text`" in done.stdout, done.stderr


def test_every_task_is_served():
    assert set(serving.TASKS) == set(params.PREPARE) == set(TASKS)


def test_importing_it_loads_no_tensorflow():
    code = "import sys; from engram import serving; print('keras' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=toy.environment(toy.ROOT),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n"
