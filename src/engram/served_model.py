"""What MLflow runs when it serves a promoted model.

MLflow keeps a copy of this file beside the model and runs it as it loads the model, so
that nothing is pickled; only `engram.promote` names it.
"""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from engram import serving


class ServedModel(mlflow.pyfunc.PythonModel):
    """Answers requests, a row of the answer for each row of the request.

    What both hold is in the model's card and signature. Of a request that holds something
    else, the answer is status 400 and says what was expected.
    """

    def load_context(self, context):
        """Loads the model; runs no code from it."""
        self.served = serving.load(Path(context.artifacts["served"]))

    def predict(self, context, model_input: np.ndarray, params=None):
        # By its signature a dict of arrays or a table, too. Without a hint MLflow warns,
        # and of another hint it would make a signature.
        try:
            answer = self.served.answer(self._named(model_input))
        except serving.Refused as error:  # MLflow answers with 400 and this message
            raise mlflow.MlflowException.invalid_parameter_value(str(error)) from None
        return pd.DataFrame({name: list(rows) for name, rows in answer.items()})

    def _named(self, given) -> dict:
        """Returns what MLflow hands over, by the names of the request's fields."""
        names = [field.name for field in self.served.given]
        if isinstance(given, np.ndarray):  # a single field has no name in a signature
            return {names[0]: given}
        if isinstance(given, pd.DataFrame):
            columns = list(given.columns) if len(names) > 1 else names
            return {n: given.iloc[:, k].tolist() for k, n in enumerate(columns)}
        return dict(given)


mlflow.models.set_model(ServedModel())
