"""What MLflow runs when it serves a translator: text in, text out.

MLflow keeps a copy of this file beside the model and runs it as it loads the model, so
that nothing is pickled; only `engram.serve` names it.
"""

import json
from pathlib import Path

import mlflow
import pandas as pd

from engram import models, translate


class ServedTranslator(mlflow.pyfunc.PythonModel):
    """Translates the sentences of a request, many at a time.

    A request has one column of text, whatever its name; the answer has the column
    `translation`. Of a sentence that is empty or no text, the answer says which.
    """

    def load_context(self, context):
        """Loads model and vocabularies; runs no code from them."""
        files = {name: Path(place) for name, place in context.artifacts.items()}
        word = context.model_config["model"]
        self.translator = translate.TextTranslator(
            models.load(word, "translation", files["model"]),
            json.loads(files["spec"].read_text()),
            {side: files[side].read_bytes() for side in ("source", "target")},
        )

    def predict(self, context, model_input: pd.DataFrame, params=None):
        sentences = model_input.iloc[:, 0].tolist()
        try:
            translate.check(sentences)
        except ValueError as error:  # MLflow answers with 400 and this message
            raise mlflow.MlflowException.invalid_parameter_value(str(error)) from None
        found = self.translator.translated(sentences)
        return pd.DataFrame({"translation": [one.text for one in found]})


mlflow.models.set_model(ServedTranslator())
