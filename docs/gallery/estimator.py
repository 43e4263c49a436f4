"""A scikit-learn classifier that learns with nbopt, and what one may do with it.

Clones it, searches over its parameters by cross-validation, pickles the best, and draws what the search found
into estimator.png. With --quick it trains for fewer epochs.
"""

import pickle
import sys

import numpy as np
from matplotlib.figure import Figure
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.utils.validation import check_is_fitted, validate_data

import nbopt as nb


class WeightNormClassifier(ClassifierMixin, BaseEstimator):
    """One hidden layer, weight-normed; the biases learn at twice the rate and are not decayed.

    All arguments are kept as they are, as scikit-learn asks; what is learned has a name that ends in `_`.
    """

    def __init__(self, hidden=64, rate=0.1, decay=1e-4, clip=1.0, epochs=20, batch=32, seed=0):
        self.hidden = hidden
        self.rate = rate
        self.decay = decay
        self.clip = clip
        self.epochs = epochs
        self.batch = batch
        self.seed = seed

    def fit(self, X, y):
        X, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, codes = np.unique(y, return_inverse=True)
        wanted = np.eye(len(self.classes_), dtype=np.float32)[codes]
        self.params_ = params = nb.ParameterBuffer(dtype="float32", seed=self.seed)
        bias = nb.ParamAttr(learning_rate=2.0, regularizer=nb.regularizer.L2Decay(0.0), need_clip=False)
        w1 = params.create_parameter([X.shape[1], self.hidden], "w1", nb.WeightNormParamAttr(dim=1))
        b1 = params.create_parameter([self.hidden], "b1", bias, is_bias=True)
        w2 = params.create_parameter([self.hidden, len(self.classes_)], "w2")
        b2 = params.create_parameter([len(self.classes_)], "b2", bias, is_bias=True)
        clip = nb.ClipGradByGlobalNorm(self.clip)
        opt = nb.optimizer.Momentum(self.rate, 0.9, params, weight_decay=self.decay, grad_clip=clip)
        rng = np.random.default_rng(self.seed)
        self.losses_ = []
        for _ in range(self.epochs):
            order = rng.permutation(len(X))
            for batch in np.array_split(order, max(1, len(X) // self.batch)):
                before, log_p = self._forward(X[batch])
                delta = (np.exp(log_p) - wanted[batch]) / len(batch)
                hidden = np.maximum(before, 0.0)
                w2.grad, b2.grad = hidden.T @ delta, delta.sum(axis=0)
                delta = (delta @ w2.value.T) * (before > 0.0)
                w1.grad, b1.grad = X[batch].T @ delta, delta.sum(axis=0)
                opt.step()
            self.losses_.append(-np.mean(np.sum(wanted[batch] * log_p, axis=1)))
        return self

    def _forward(self, X):
        w1, b1, w2, b2 = self.params_.values()
        before = X @ w1.value + b1.value
        return before, log_softmax(np.maximum(before, 0.0) @ w2.value + b2.value, axis=1)

    def predict_proba(self, X):
        check_is_fitted(self)
        return np.exp(self._forward(validate_data(self, X, dtype=np.float32, reset=False))[1])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def main(epochs):
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)
    grid = {"rate": [0.01, 0.05, 0.2], "hidden": [16, 64]}
    search = GridSearchCV(WeightNormClassifier(epochs=epochs), grid, cv=3).fit(X_train, y_train)
    best = search.best_estimator_
    print(f"best of the search: hidden {best.hidden}, rate {best.rate}")
    print(f"accuracy on images held out: {best.score(X_test, y_test):.3f}")
    again = pickle.loads(pickle.dumps(best))
    print(f"pickled and read back, it predicts the same: {np.array_equal(again.predict(X), best.predict(X))}")
    fresh = clone(best).fit(X_train, y_train)
    same = fresh.params_.fingerprint() == best.params_.fingerprint()
    print(f"cloned and trained again, it has the same weights to the bit: {same}")

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    table = search.cv_results_
    for hidden, color in ((16, "#d9730d"), (64, "#3b82c4")):
        rows = [i for i, p in enumerate(table["params"]) if p["hidden"] == hidden]
        scores = (table["mean_test_score"][rows], table["std_test_score"][rows])
        axes.errorbar(
            grid["rate"],
            scores[0],
            yerr=scores[1],
            marker="o",
            capsize=3,
            color=color,
            label=f"{hidden} hidden",
        )
    axes.set(xlabel="learning rate", ylabel="accuracy, three folds", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig("estimator.png", dpi=110)


if __name__ == "__main__":
    main(epochs=2 if "--quick" in sys.argv else 20)
