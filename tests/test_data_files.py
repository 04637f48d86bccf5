"""Which files of a folder are read, as which split; and none outside it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from selm.data import on_disk
from selm.data.counting import held_out_rows, train_rows
from selm.data.portions import held_out_portion, training_portion
from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Data, Recipe

SELM = "{objective: selm, learning_rate: 1}"


def rows(name: str, count: int = 20) -> str:
    pairs = [{"prompt": f"{name} {i}", "chosen": "good", "rejected": "bad"} for i in range(count)]
    return "".join(json.dumps(pair) + "\n" for pair in pairs)


def folder_of(root: Path, files: dict[str, str], configs: Any = None) -> Path:
    """A folder `own` with these files, and a README whose head names these subsets."""
    folder = root / "own"
    if configs is not None:
        head = yaml.safe_dump({"configs": configs})
        files = files | {"README.md": f"---\n{head}---\n\n# Pairs\n"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture
def recipe_of(tiny_recipe: str):
    def make(path: Path, *overrides: str, iterations: int = 1) -> Recipe:
        portions = f"iterations=[{', '.join([SELM] * iterations)}]"
        return load_recipe(tiny_recipe, [f"data.name_or_path={path}", portions, *overrides])

    return make


def read(folder: Path, **keys: Any) -> list[str]:
    """Names of the files that are read, relative to the folder."""
    data = Data(name_or_path=str(folder), **keys)
    found = {path for which in ("train", "test") for path in on_disk.files_read(data, which)}
    return sorted(str(path.relative_to(folder)) for path in found)


# Files in the folder, and those of them that train and test are read from.
LAYOUTS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "two files": (["train.jsonl", "test.jsonl"], ["train.jsonl"], ["test.jsonl"]),
    "train alone": (["train.jsonl"], ["train.jsonl"], []),
    "one file of another name": (["pairs.jsonl"], ["pairs.jsonl"], []),
    "other files beside": (
        ["train.jsonl", "test.jsonl", "notes.txt", "report.json", "pairs.jsonl", "load.py"],
        ["train.jsonl"],
        ["test.jsonl"],
    ),
    "hidden files": (
        ["train.jsonl", ".train.jsonl", ".cache/train.jsonl", "._test.jsonl", "__x__/test.jsonl"],
        ["train.jsonl"],
        [],
    ),
    "a run's output": (
        [
            *("train.jsonl", "test.jsonl", "runs/first/iter-1/responses/train.parquet"),
            *(
                "runs/first/iter-0/evaluation/test.parquet",
                "first/iter-1/checkpoint/a.json",
            ),
        ],
        ["train.jsonl"],
        ["test.jsonl"],
    ),
    "a run's output and no test": (
        ["train.jsonl", "runs/first/iter-0/evaluation/test.parquet"],
        ["train.jsonl"],
        [],
    ),
    "shards in data": (
        [
            *("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"),
            "data/test-00000-of-00001-a1b2c3.jsonl",
        ],
        ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"],
        ["data/test-00000-of-00001-a1b2c3.jsonl"],
    ),
    "files in data": (
        ["data/train.jsonl", "data/test.jsonl"],
        ["data/train.jsonl"],
        ["data/test.jsonl"],
    ),
    "a folder for each": (
        ["train/b.jsonl", "train/a.jsonl", "test/a.jsonl"],
        ["train/a.jsonl", "train/b.jsonl"],
        ["test/a.jsonl"],
    ),
    "parts": (
        ["train_1.jsonl", "train_2.jsonl", "test.jsonl"],
        ["train_1.jsonl", "train_2.jsonl"],
        ["test.jsonl"],
    ),
    "other words": (["training.jsonl", "eval.jsonl"], ["training.jsonl"], ["eval.jsonl"]),
    "the top before data": (
        ["train.jsonl", "data/train.jsonl", "data/other.jsonl"],
        ["train.jsonl"],
        [],
    ),
    "descriptions beside": (
        ["train.jsonl", "dataset_info.json", "state.json", "config.json"],
        ["train.jsonl"],
        [],
    ),
    "a folder in a folder": (
        ["pairs/train.jsonl", "pairs/test.jsonl"],
        ["pairs/train.jsonl"],
        ["pairs/test.jsonl"],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_files_of_the_wanted_splits_are_read_and_no_others(name: str, tmp_path: Path) -> None:
    files, train, test = LAYOUTS[name]
    folder = folder_of(tmp_path, {file: rows(file) for file in files})
    assert read(folder) == sorted(train + test)
    splits = on_disk.local_splits(Data(name_or_path=str(folder)))
    assert [str(path.relative_to(folder)) for path in splits["train"]] == train
    assert [str(path.relative_to(folder)) for path in splits.get("test", [])] == test


def test_a_file_that_is_not_read_changes_nothing_of_what_is(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"train.jsonl": rows("a"), "test.jsonl": rows("b")})
    before = read(folder)
    folder_of(
        tmp_path, {".DS_Store": "", "notes.txt": "", "runs/x/train.parquet": "", "a.json": ""}
    )
    assert read(folder) == before == ["test.jsonl", "train.jsonl"]


CONFIGS = [
    {
        "config_name": "preference",
        "data_files": [
            {"split": "train", "path": "preference/train.jsonl"},
            {"split": "test", "path": "preference/te*.jsonl"},
        ],
    },
    {"config_name": "edit", "data_files": "edit/**/*.jsonl"},
    {"config_name": "folder", "data_dir": "preference"},
]
FILES = {name: rows(name) for name in ("preference/train.jsonl", "preference/test.jsonl")}
FILES |= {"edit/a/1.jsonl": rows("1"), "edit/2.jsonl": rows("2")}


@pytest.mark.parametrize(
    ("subset", "wanted"),
    [
        ("preference", ["preference/test.jsonl", "preference/train.jsonl"]),
        ("edit", ["edit/2.jsonl", "edit/a/1.jsonl"]),
        ("folder", ["preference/test.jsonl", "preference/train.jsonl"]),
    ],
)
def test_a_subset_is_read_as_the_readme_says(subset: str, wanted: list[str], tmp_path) -> None:
    folder = folder_of(tmp_path, FILES, CONFIGS)
    assert read(folder, subset=subset) == ["README.md", *wanted]


def test_a_subset_that_is_not_named_or_not_there_is_a_line_with_those_that_are(
    tmp_path: Path, recipe_of
) -> None:
    for configs in (CONFIGS, None):
        folder = folder_of(tmp_path / str(configs is None), FILES, configs)
        for overrides, words in (
            ([], "data.subset: missing"),
            (["data.subset=other"], "no subset 'other'"),
        ):
            with pytest.raises(UserError, match=words) as caught:
                training_portion(recipe_of(folder, *overrides), 1)
            assert "preference" in str(caught.value) and "edit" in str(caught.value)
    assert read(folder, subset="preference") == ["preference/test.jsonl", "preference/train.jsonl"]
    single = folder_of(tmp_path / "single", {"train.jsonl": rows("a")})
    for path in (single, single / "train.jsonl"):
        with pytest.raises(UserError, match=r"data\.subset: .*remove the key"):
            training_portion(recipe_of(path, "data.subset=edit"), 1)


def test_a_default_subset_needs_no_name(tmp_path: Path) -> None:
    default = [CONFIGS[0], CONFIGS[1] | {"default": True}]
    assert read(folder_of(tmp_path, FILES, default)) == [
        "README.md",
        "edit/2.jsonl",
        "edit/a/1.jsonl",
    ]
    named = [CONFIGS[0] | {"config_name": "default"}, CONFIGS[1]]
    assert "preference/train.jsonl" in read(folder_of(tmp_path, FILES, named))


OUTSIDE = [
    *("../secret.jsonl", "preference/../../secret.jsonl", "/etc/passwd", "~/secret.jsonl"),
    *("https://example.com/a.jsonl", "hf://datasets/a/b/c.jsonl", "file:///etc/passwd"),
    *("C:\\secret.jsonl", "..\\secret.jsonl", "zip://a.jsonl::https://example.com/a.zip"),
    *("**/../../secret.jsonl", "\\\\host\\share.jsonl"),
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_readme_names_no_file_outside_its_folder(path: str, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(rows("secret"), encoding="utf-8")
    for declared in (path, [path], {"train": path}, [{"split": "train", "path": [path]}]):
        configs = [{"config_name": "default", "data_files": declared}]
        folder = folder_of(tmp_path, FILES, configs)
        with pytest.raises(
            UserError, match=r"README\.md names .* only files in this folder are read"
        ):
            read(folder)
    folder = folder_of(tmp_path, FILES, [{"config_name": "a", "data_dir": path}])
    with pytest.raises(UserError, match="only files in this folder are read"):
        read(folder)


def test_a_link_that_a_readme_names_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(rows("secret"), encoding="utf-8")
    folder = folder_of(
        tmp_path, {"real.jsonl": rows("a")}, [{"config_name": "a", "data_files": "link.jsonl"}]
    )
    (folder / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(UserError, match="leads out of the folder"):
        read(folder)
    (folder / "link.jsonl").unlink()
    (folder / "link.jsonl").symlink_to("real.jsonl")
    assert read(folder) == ["README.md", "link.jsonl"]
    (folder / "outside").symlink_to(tmp_path)
    configs = [{"config_name": "a", "data_files": "outside/*.jsonl"}]
    with pytest.raises(UserError, match="no such data file"):
        read(folder_of(tmp_path, {}, configs))


def test_links_of_the_hubs_cache_and_of_the_user_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "0"
    folder_of(snapshot, {}, [{"config_name": "a", "data_files": "train.jsonl"}])
    blob = tmp_path / "datasets--a--b" / "blobs" / "1"
    blob.parent.mkdir()
    blob.write_text(rows("a"), encoding="utf-8")
    (snapshot / "own").rename(snapshot.parent / "1")
    (snapshot.parent / "1" / "train.jsonl").symlink_to(blob)
    assert read(snapshot.parent / "1") == ["README.md", "train.jsonl"]
    mine = folder_of(tmp_path, {"notes.txt": ""})
    (mine / "train.jsonl").symlink_to(blob)
    assert read(mine) == ["train.jsonl"]


README_TROUBLE: dict[str, tuple[str, str]] = {
    "no YAML": ("---\nconfigs: [\n---\n", "its head is not valid YAML"),
    "no list": ("---\nconfigs: 7\n---\n", "`configs` must be a list"),
    "no names": ("---\nconfigs: [{data_files: a}]\n---\n", "`configs` must be a list"),
    "no paths": (
        "---\nconfigs: [{config_name: a, data_files: [{split: train}]}]\n---\n",
        "`data_files` must be a list",
    ),
    "numbers": (
        "---\nconfigs: [{config_name: a, data_files: {train: 7}}]\n---\n",
        "`data_files` must be a list",
    ),
    "nothing there": (
        "---\nconfigs: [{config_name: a, data_files: other/*.jsonl}]\n---\n",
        "names other/*.jsonl, but there is no such data file",
    ),
    "a bomb": ("---\na: &a [x]\nconfigs: " + "[" * 2000 + "]" * 2000 + "\n---\n", "README.md"),
}


@pytest.mark.parametrize("name", README_TROUBLE)
def test_a_readme_that_makes_no_sense_is_one_line(name: str, tmp_path: Path) -> None:
    text, words = README_TROUBLE[name]
    folder = folder_of(tmp_path, FILES | {"README.md": text})
    with pytest.raises(UserError) as caught:
        read(folder)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_readme_of_words_alone_decides_nothing(tmp_path: Path) -> None:
    for text in (
        "# Pairs\n",
        "---\nlicense: mit\n---\n",
        "---\n---\n",
        "---\n- a\n---\n",
        "\ufeff",
    ):
        folder = folder_of(tmp_path, {"train.jsonl": rows("a"), "README.md": text})
        assert read(folder) == ["train.jsonl"]


FOLDER_TROUBLE: dict[str, tuple[list[str], str]] = {
    "nothing": (["notes.txt"], "has no data files; use .jsonl"),
    "hidden files alone": ([".train.jsonl"], "has no data files"),
    "a script": (["own.py"], "has no data files"),
    "two forms": (["train.jsonl", "train.csv"], "several files of the split train"),
    "two forms, compressed": (
        ["train.jsonl", "train.jsonl.gz"],
        "several files of the split train",
    ),
    "a file and shards": (
        ["train.jsonl", "train-00000-of-00001.jsonl"],
        "several files of the split",
    ),
    "a missing shard": (["train-00000-of-00002.jsonl"], "has 1 of the 2 files of the split train"),
    "no train": (["test.jsonl"], "no split 'train'; it has test"),
}


@pytest.mark.parametrize("name", FOLDER_TROUBLE)
def test_a_folder_that_cannot_be_read_is_one_line(name: str, tmp_path: Path, recipe_of) -> None:
    files, words = FOLDER_TROUBLE[name]
    folder = folder_of(tmp_path, {file: rows(file) for file in files})
    with pytest.raises(UserError) as caught:
        training_portion(recipe_of(folder), 1)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_entered_is_one_line(tmp_path: Path, recipe_of) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may enter all folders")
    folder = folder_of(tmp_path, {"train.jsonl": rows("a")})
    folder.chmod(0)
    try:
        with pytest.raises(UserError, match="cannot be read: Permission denied"):
            read(folder)
    finally:
        folder.chmod(0o700)


def prompts(found: tuple[list[dict[str, Any]], Any]) -> list[str]:
    return [row["prompt"][0]["content"] for row in found[0]]


@pytest.mark.parametrize("single", [False, True])
def test_where_nothing_is_held_out_the_last_tenth_is(
    single: bool, tmp_path: Path, recipe_of
) -> None:
    folder = folder_of(tmp_path, {"train.jsonl": rows("a", 25)})
    path = folder / "train.jsonl" if single else folder
    recipe = recipe_of(path, iterations=2)
    trained = [p for t in (1, 2) for p in prompts(training_portion(recipe, t))]
    assert trained == [f"a {i}" for i in range(22)]
    assert prompts(held_out_portion(recipe)) == [f"a {i}" for i in range(22, 25)]
    assert (train_rows(recipe), held_out_rows(recipe)) == (22, 3)
    limited = recipe_of(path, "data.limit=4", "evaluation.limit=2", "data.train_rows=22")
    assert prompts(training_portion(limited, 1)) == [f"a {i}" for i in range(4)]
    assert prompts(held_out_portion(limited)) == ["a 22", "a 23"]


def test_shards_are_one_split_in_their_order(tmp_path: Path, recipe_of) -> None:
    shards = {f"train-0000{i}-of-00003.jsonl": rows(f"s{i}", 4) for i in range(3)}
    recipe = recipe_of(folder_of(tmp_path, shards | {"test.jsonl": rows("t")}), iterations=5)
    trained = [p for t in range(1, 6) for p in prompts(training_portion(recipe, t))]
    assert trained == [f"s{s} {i}" for s in range(3) for i in range(4)]
    assert train_rows(recipe) == 12


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(
    ("train", "test", "first_trained", "first_held_out"),
    [
        ("train[:90%]", "train[90%:]", ("a 0", 18), ("a 18", 2)),
        ("train[5:]", "train[:5]", ("a 5", 15), ("a 0", 5)),
        ("train[:10]", "test", ("a 0", 9), ("a 9", 1)),
        ("train[:4]+train[8:12]", "train[4:8]", ("a 0", 8), ("a 4", 4)),
    ],
)
def test_a_part_of_a_split_is_a_split(
    single: bool,
    train: str,
    test: str,
    first_trained: Any,
    first_held_out: Any,
    tmp_path,
    recipe_of,
) -> None:
    folder = folder_of(tmp_path, {"train.jsonl": rows("a")})
    path = folder / "train.jsonl" if single else folder
    if single and "+" in train:
        pytest.skip("a file knows one split")
    recipe = recipe_of(path, f"data.train_split={train}", f"data.test_split={test}")
    trained, held_out = training_portion(recipe, 1), held_out_portion(recipe)
    assert (prompts(trained)[0], len(trained[0])) == first_trained
    assert (prompts(held_out)[0], len(held_out[0])) == first_held_out
    assert not set(prompts(trained)) & set(prompts(held_out))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(
    ("train", "test", "shared"),
    [
        ("train", "train", 20),
        ("train", "train[:4]", 4),
        ("train[:60%]", "train[50%:]", 2),
        ("train[10:]", "train[-1:]", 1),
    ],
)
def test_rows_that_are_trained_on_are_not_held_out(
    single: bool, train: str, test: str, shared: int, tmp_path: Path, recipe_of
) -> None:
    folder = folder_of(tmp_path, {"train.jsonl": rows("a"), "test.jsonl": rows("t")})
    path = folder / "train.jsonl" if single else folder
    recipe = recipe_of(path, f"data.train_split={train}", f"data.test_split={test}")
    for load in (lambda: training_portion(recipe, 1), lambda: held_out_portion(recipe)):
        with pytest.raises(UserError, match=f"data.test_split: .* has {shared} rows that are"):
            load()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.train_split=train_prefs"], "data.train_split: .*'train_prefs'; it has train, test"),
        (["data.test_split=validation"], "data.test_split: .*'validation'; it has train, test"),
        (["data.train_split=train[x]"], "is not a part of a split; use train"),
        (["data.train_split=train["], "is not a part of a split"),
        (["data.test_split=other[:3]"], "no split 'other'"),
        (["data.test_split="], "data.test_split"),
    ],
)
def test_a_split_that_is_not_there_is_named_with_those_that_are(
    overrides: list[str], words: str, tmp_path: Path, recipe_of
) -> None:
    folder = folder_of(tmp_path, {"train.jsonl": rows("a"), "test.jsonl": rows("t")})
    with pytest.raises(UserError, match=words):
        training_portion(recipe_of(folder, *overrides), 1)
