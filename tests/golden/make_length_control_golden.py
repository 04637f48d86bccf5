"""Make length_control.json.gz: what the package alpaca-eval says of synthetic annotations.

    python3.11 -m venv golden-env
    golden-env/bin/pip install alpaca-eval==0.6.6 scikit-learn==1.9.1 scipy==1.17.1 \\
        numpy==2.3.5 pandas==2.3.3 patsy==1.0.3
    golden-env/bin/python tests/golden/make_length_control_golden.py

The package takes the difficulties of instructions and the annotations of gamed baselines from the
Hub; here it gets a synthetic file of the same form. Nothing of AlpacaEval's own data is used. A few
seconds on a CPU.
"""

import gzip
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
INSTRUCTIONS = 298  # not a multiple of 5: folds differ in size

# name -> the weights that the preferences are drawn with, how much longer the model's answers are,
# how sure the judge is (0: always a tie), and how many of the instructions are annotated
CASES = {
    "strong": ((-1.0, 0.8, 0.9), 1.0, 2.0, 298),
    "weak and short": ((-1.6, 1.1, -2.3), 0.3, 2.0, 298),
    "weak and long": ((-2.0, 0.9, -1.7), 2.5, 2.0, 298),
    "hopeless": ((-1.5, 0.5, -5.0), 0.5, 2.0, 298),
    "verdicts without probabilities": ((-1.2, 0.9, -0.4), 1.2, 99.0, 298),
    "the first instructions only": ((-1.0, 0.8, 0.2), 1.2, 2.0, 61),
    "hardly more than noise": ((-0.1, 0.1, 0.1), 1.1, 0.5, 23),
    "noise": ((0.0, 0.0, 0.0), 1.1, 2.0, 38),
    "a few verdicts": ((-0.3, 0.3, 0.3), 1.1, 99.0, 31),
    "half of the answers empty": ((-1.0, 0.8, -1.0), -1.0, 2.0, 298),
    "all won": ((0.0, 0.0, 40.0), 1.0, 99.0, 298),
}
GAMED = {"brief": 0.5, "verbose": 1.6}


def preferences(rng, weights, scaled_differences, difficulties, sureness):
    """In [0, 1], drawn around the formula's logits."""
    logits = weights[0] * np.tanh(scaled_differences) + weights[1] * difficulties + weights[2]
    logits = sureness * (logits + rng.logistic(size=len(logits)))
    return np.round(1 / (1 + np.exp(-np.clip(logits, -50, 50))), 6)


def lengths(rng, baseline, ratio):
    """Of answers; a negative ratio is that of answers half of which are empty."""
    drawn = np.round(baseline * abs(ratio) * rng.lognormal(0, 0.4, len(baseline))).astype(int)
    return np.where(rng.random(len(drawn)) < 0.5, 0, drawn) if ratio < 0 else drawn


def scaled(baseline, own):
    differences = baseline - own
    return differences / differences.std(ddof=1)


def reference_file(rng, baseline, difficulties) -> pd.DataFrame:
    """In the form of the Hub's df_gamed.csv."""
    parts = []
    for model, ratio in GAMED.items():
        differences = scaled(baseline, lengths(rng, baseline, ratio))
        parts.append(
            pd.DataFrame(
                {
                    "index": np.arange(INSTRUCTIONS),
                    "model": model,
                    "preference": preferences(
                        rng, (-1.3, 0.4, 0.0), differences, difficulties, 2.0
                    ),
                    "std_delta_len": np.round(differences, 6),
                    "instruction_difficulty": difficulties,
                    "not_gamed_baseline": False,
                }
            )
        )
    return pd.concat(parts)


def original(annotations: pd.DataFrame, glm_name: str) -> dict:
    """The package's answer, with the weights that it writes into a file."""
    from alpaca_eval.metrics.glm_winrate import get_length_controlled_winrate

    with tempfile.TemporaryDirectory() as folder:
        found = get_length_controlled_winrate(
            annotations, glm_name=glm_name, save_weights_dir=folder
        )
        (file,) = Path(folder, glm_name).glob("*.csv")
        weights = pd.read_csv(file, index_col=0).loc["model"].tolist()
    keys = ("win_rate", "standard_error", "length_controlled_winrate", "lc_standard_error")
    return {key: float(found[key]) for key in keys} | {"weights": weights}


def case(rng, name, baseline, difficulties) -> dict:
    weights, ratio, sureness, count = CASES[name]
    own = lengths(rng, baseline, ratio)
    drawn = preferences(rng, weights, scaled(baseline, own), difficulties, sureness) + 1
    annotations = pd.DataFrame(
        {
            "preference": drawn,
            "output_1": ["b" * n for n in baseline],
            "output_2": ["m" * n for n in own],
            "generator_1": "baseline",
            "generator_2": "model",
        }
    )[:count]
    return {
        "name": name,
        "preferences": drawn[:count].tolist(),
        "lengths": own[:count].tolist(),
        "regularised": original(annotations, "length_controlled_v1"),
        "not regularised": original(annotations, "length_controlled_noreg"),
    }


def main() -> None:
    from alpaca_eval.metrics import glm_winrate

    warnings.simplefilter("ignore", FutureWarning)
    rng = np.random.default_rng(2)
    baseline = np.round(rng.lognormal(7, 0.8, INSTRUCTIONS)).astype(int)
    difficulties = np.round(rng.normal(0, 1.2, INSTRUCTIONS), 6)
    table = reference_file(rng, baseline, difficulties)
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        table.to_csv(file.name, index=False)
        glm_winrate.hf_hub_download = lambda **_: file.name
        cases = [case(rng, name, baseline, difficulties) for name in CASES]
    for found in cases:
        pair = (found[kind] for kind in ("regularised", "not regularised"))
        print(found["name"], *(f"{one['length_controlled_winrate']:.3f}" for one in pair))
    made = {
        "baseline_lengths": baseline.tolist(),
        "df_gamed": table.drop(columns=["model"]).to_dict("list"),
        "cases": cases,
    }
    with gzip.GzipFile(HERE / "length_control.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps(made).encode())


if __name__ == "__main__":
    main()
