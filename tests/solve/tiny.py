"""Tiny random models with tiny grammars, tasks for them, and the plainest ways to score and search: the oracles."""

from dataclasses import replace

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ttt_core.arc.augment import view
from ttt_core.arc.encode import DIGITS, GridFormat
from ttt_core.arc.grammar import Grammar
from ttt_core.arc.tasks import Pair, Task
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve.prefix import Query

SMALL = Grammar(vocab_size=15, row_end=10, end=13, max_side=2)
SIZES = {"vocab_size": 15, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


def grid_model():
    return GridLM(GridLMConfig(width=32, layers=2, heads=2, hidden=48, task_ids=["a"] * 8))


def gpt2_model():
    return GPT2LMHeadModel(GPT2Config(vocab_size=15, n_positions=512, n_embd=32, n_layer=2, n_head=2))


def llama_model():
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=2, num_key_value_heads=1))


def eager_model():
    return LlamaForCausalLM._from_config(LlamaConfig(**SIZES, num_attention_heads=2), attn_implementation="eager")


MODELS = {"grid": grid_model, "gpt2": gpt2_model, "llama": llama_model, "eager": eager_model}


def loaded(name: str, seed: int = 0, grammar: Grammar = SMALL) -> LoadedModel:
    """A random model whose answers are neither certain nor flat."""
    torch.manual_seed(seed)
    net = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.25)
    format = GridFormat(grammar=grammar) if name == "grid" else replace(DIGITS, grammar=grammar)
    cpu = torch.device("cpu")
    return LoadedModel(net, format, cpu, torch.float32, path="", sha256="")


def flat(name: str, grammar: Grammar = SMALL) -> LoadedModel:
    """A model that likes to ramble: every token is always as likely as every other."""
    model = loaded(name, grammar=grammar)
    with torch.no_grad():
        for parameter in model.net.get_output_embeddings().parameters():
            parameter.zero_()
    return model


def sure(model: LoadedModel) -> LoadedModel:
    """`model` with far more certain answers."""
    with torch.no_grad():
        for parameter in model.net.get_output_embeddings().parameters():
            parameter.mul_(4)
    return model


def a_task(rng, name: str = "t", tests: int = 2) -> Task:
    """A task of random grids with sides of at most 2."""

    def grid():
        return rng.integers(0, 10, rng.integers(1, 3, size=2)).astype(np.uint8)

    return Task(name, tuple(Pair(grid(), grid()) for _ in range(2)), tuple(Pair(grid()) for _ in range(tests)))


def a_query(model, task, augmentation, index=0, **options) -> Query:
    return Query(model.format.query(view(augmentation, task), index), augmentation.dihedral, **options)


def as_dict(answers) -> list[dict]:
    return [{tuple(map(int, ids)): logprob for ids, logprob in found} for found in answers]


def same(left, right, tolerance=1e-4):
    """The same answers with the same log-probs, query by query; both as `decode` returns them."""
    for a, b in zip(as_dict(left), as_dict(right), strict=True):
        assert set(a) == set(b)
        assert all(abs(a[key] - b[key]) < tolerance for key in a)


@torch.no_grad()
def ahead(model, query, answer) -> np.ndarray:
    """Log-probs (T + 1, V) before each token of `answer` and after the last, by one plain pass: no cache, no batch."""
    ids, positions = list(query.prefix.ids), list(query.prefix.positions)
    state = model.format.grammar.start(1)
    for step, token in enumerate(answer):
        positions.append(model.format.positions(np.array([len(query.prefix)]), step, state.rows, state.cols)[0])
        ids.append(token)
        state = model.format.grammar.advance(state, np.array([token]))
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.from_numpy(np.array(positions))[None]}
    if model.format.name == "grid":
        inputs["task_ids"] = inputs["dihedral_ids"] = torch.tensor([query.dihedral])
    return torch.log_softmax(model.net(**inputs).logits.double()[0, len(query.prefix) - 1 :], -1).numpy()


def one_by_one(model, query, answer) -> float:
    """Log-prob of an answer."""
    return float(ahead(model, query, answer)[np.arange(len(answer)), answer].sum())


def enumerated(model, query, floor, bounds=None, renormalise=False) -> dict[tuple[int, ...], float]:
    """Brute force: every answer at or above the floor, a pass for each beginning of it."""
    grammar, found, stack = model.format.grammar, {}, [((), 0.0, model.format.grammar.start(1))]
    while stack:
        tokens, total, state = stack.pop()
        allowed = grammar.allowed(state, bounds)[0]
        logprobs = ahead(model, query, tokens)[-1]
        if renormalise:
            logprobs = logprobs - np.log(np.exp(logprobs[allowed]).sum())
        for token in np.flatnonzero(allowed & (total + logprobs >= np.log(floor))):
            longer, score = (*tokens, int(token)), float(total + logprobs[token])
            if token == grammar.end:
                found[longer] = score
            else:
                stack.append((longer, score, grammar.advance(state, np.array([token]))))
    return found
