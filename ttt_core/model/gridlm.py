"""GridLM: the bundled decoder-only transformer over one grid pair, in transformers' conventions.

Pre-norm RMSNorm, SwiGLU, rotary positions split over three axes (role, row, column), untied. A task is known to it
only by its task vector, added to every token together with a vector of the view's dihedral. The input grid attends
to itself in both directions, the answer causally. Not here: tokens (`arc/encode.py`) or training (`pretrain.py`).

Shapes: B batch, T new tokens, R those asked for, S cached + new tokens, D width, H heads, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from ttt_core.model.kernels import compute_dtype

IGNORE = -100
ALL = slice(None)
ROPE_BASE = 100.0  # positions end at 31, so the slowest pair turns about a third of a radian over a grid


class GridLMConfig(PretrainedConfig):
    """width D, layers, heads H, hidden (SwiGLU), task_ids: the training tasks whose vectors the model holds.

    shown_ids: tasks of which it, or a base before it, saw the demonstrations alone. learnt_ids: all tasks that it or a base
    before it learnt with their answers; without them, the rest of task_ids.
    """

    model_type = "gridlm"

    def __init__(
        self, width=256, layers=4, heads=4, hidden=None, vocab_size=15, task_ids=(), dropout=0.0,
        shown_ids=(), learnt_ids=None, **kwargs,
    ):  # fmt: skip
        self.width, self.layers, self.heads = width, layers, heads
        self.hidden = hidden or 64 * max(1, round(width * 8 / 3 / 64))
        self.vocab_size, self.task_ids, self.dropout = vocab_size, list(task_ids), dropout
        self.shown_ids = list(shown_ids)
        self.learnt_ids = sorted(set(task_ids) - set(shown_ids)) if learnt_ids is None else list(learnt_ids)
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)


class GridLM(PreTrainedModel):
    """tokens -> logits. `set_tasks` gives it fresh task vectors for new tasks."""

    config_class = GridLMConfig
    base_model_prefix = "gridlm"
    _supports_sdpa = True

    def __init__(self, config: GridLMConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.task_vectors = nn.Embedding(max(1, len(config.task_ids)), config.width)
        self.dihedral_vectors = nn.Embedding(8, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if getattr(module, "is_residual", False):
                nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02 if module is not self.embed_tokens else 1.0)
        elif isinstance(module, nn.RMSNorm):
            nn.init.ones_(module.weight)

    def get_input_embeddings(self):
        return self.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def set_tasks(self, vectors: Tensor) -> None:
        """Replace the task vectors by `vectors` (N, D): a fresh trainable parameter on the model's device."""
        weight = vectors.detach().clone().to(self.embed_tokens.weight)
        self.task_vectors = nn.Embedding.from_pretrained(weight, freeze=False)

    def forward(
        self,
        input_ids: Tensor,  # (B, T)
        position_ids: Tensor,  # (B, T, 3): role, row, column
        task_ids: Tensor,  # (B,)
        dihedral_ids: Tensor,  # (B,)
        attention_mask: Tensor | None = None,  # (B, S), 0 where there is padding; or (B, 1, T, S)
        past_key_values: DynamicCache | None = None,
        labels: Tensor | None = None,  # (B, T), IGNORE where nothing is to be predicted
        logits_to_keep: int = 0,  # of the last positions only; 0 keeps all
        **_,
    ) -> CausalLMOutputWithPast:
        """With labels, loss is the mean over targets in nats and logits are those of the targets (M, V) alone."""
        x = self.embed_tokens(input_ids)  # (B, T, D)
        x = x + (self.task_vectors(task_ids) + self.dihedral_vectors(dihedral_ids))[:, None]
        rotary = rotary_table(position_ids, self.config.width // self.config.heads, x.dtype)
        mask = attention_bias(position_ids, attention_mask, past_key_values).to(compute_dtype(x))
        rows = asked_rows(labels, logits_to_keep)
        for i, layer in enumerate(self.layers):
            x = layer(x, rotary, mask, past_key_values, i, rows if layer is self.layers[-1] else ALL)
        if labels is not None:
            labels = labels[:, rows][:, 1:]
            logits = self.lm_head(self.norm(x[:, :-1][labels != IGNORE])).float()  # (M, V)
            return CausalLMOutputWithPast(loss=F.cross_entropy(logits, labels[labels != IGNORE]), logits=logits)
        logits = self.lm_head(self.norm(x)).float()  # (B, T or logits_to_keep, V)
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


class Layer(nn.Module):
    """Attention, then SwiGLU, each on a normalised residual stream."""

    def __init__(self, config: GridLMConfig):
        super().__init__()
        self.attn_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.attn = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()

    def forward(self, x, rotary, mask, cache, index, rows):
        """x (B, T, D) gives (B, R, D), R the number of `rows`: a slice of T or indices."""
        return self.after(x[:, rows], self.attn(self.attn_norm(x), rotary, mask, cache, index, rows))

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream x once what attention gives, and the SwiGLU, are added."""
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


def each_of(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """What each of `layers` makes of the same x."""
    return tuple(layer(x) for layer in layers)


class Attention(nn.Module):
    def __init__(self, config: GridLMConfig):
        super().__init__()
        self.heads = config.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(config.width, config.width, bias=False) for _ in range(4)
        )
        self.o_proj.is_residual = True

    def forward(self, x, rotary, mask, cache, index, rows):
        q, k, v = (y.transpose(1, 2) for y in self.split(x, x[:, rows]))  # (B, H, R, D/H), (B, H, T, D/H) twice
        q, k = rotate(q, [t[:, :, rows] for t in rotary]), rotate(k, rotary)
        if cache is not None:
            k, v = cache.update(k, v, index)  # (B, H, S, D/H)
        y = attend(q, k.to(q.dtype), v.to(q.dtype), mask[:, :, rows])  # (B, H, R, D/H)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def split(self, x: Tensor, asking: Tensor | None = None, project=each_of) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of `asking` (..., D), without it of x, keys and values of x (..., D): (..., H, D/H) each.

        project(x, layers): what each of the layers makes of x.
        """
        if asking is None:
            q, k, v = project(x, (self.q_proj, self.k_proj, self.v_proj))
        else:
            q, (k, v) = self.q_proj(asking), project(x, (self.k_proj, self.v_proj))
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (q, k, v))
        return q, k, v


class MLP(nn.Module):
    def __init__(self, config: GridLMConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.hidden, bias=False)
        self.up_proj = nn.Linear(config.width, config.hidden, bias=False)
        self.down_proj = nn.Linear(config.hidden, config.width, bias=False)
        self.down_proj.is_residual = True

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def asked_rows(labels: Tensor | None, logits_to_keep: int) -> slice:
    """The positions whose logits are asked for: what the last layer need not compute of others, it does not."""
    if labels is None:
        return slice(-logits_to_keep, None) if logits_to_keep else ALL
    first = int((labels != IGNORE).any(dim=0).int().argmax())  # of all rows
    return slice(max(0, first - 1), None)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention of q (B, H, R, d) over k, v (B, H, S, d) with an additive bias (B, 1, R, S).

    Where a gradient is wanted on CPU, two plain products: at grid lengths a training step with them is 1.3 times as fast as
    with the fused kernel, which without a gradient is 2 to 9 times as fast as they are. For two queries in bfloat16 that
    takes a CPU less than half of the time it takes for one.
    """
    if q.is_cuda or not torch.is_grad_enabled():
        if q.shape[2] == 1 and q.device.type == "cpu" and q.dtype == torch.bfloat16:
            return F.scaled_dot_product_attention(torch.cat([q, q], dim=2), k, v, attn_mask=bias)[:, :, :1]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5 + bias  # (B, H, T, S)
    return torch.softmax(scores, dim=-1).to(v.dtype) @ v


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Rotary dimensions of role, row and column: an eighth for the role, the rest shared; all even."""
    grid = 2 * ((head_dim - head_dim // 8) // 4)
    return head_dim - 2 * grid, grid, grid


def rotary_table(position_ids: Tensor, head_dim: int, dtype) -> tuple[Tensor, Tensor]:
    """cos and sin, (B, 1, T, head_dim / 2) each, of the three axes' angles side by side."""
    angles = []
    for axis, dims in enumerate(axis_dims(head_dim)):
        step = torch.arange(0, dims, 2, device=position_ids.device)
        angles.append(position_ids[..., axis, None] * ROPE_BASE ** (-step / dims))
    angles = torch.cat(angles, dim=-1)[:, None]  # (B, 1, T, head_dim/2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, rotary: Sequence[Tensor]) -> Tensor:
    """x (B, H, T, d) with each pair (x[i], x[i + d/2]) turned by its angle."""
    cos, sin = (t.to(x.dtype) for t in rotary)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def attention_bias(position_ids: Tensor, attention_mask: Tensor | None, cache: DynamicCache | None) -> Tensor:
    """(B, 1, T, S) float, 0 where attention is allowed, else -inf: cached and input tokens by all, answers causally.

    A row that may attend to nothing (padding) attends to itself, so that no NaN arises. A mask (B, 1, T, S), bool or
    additive, is taken as it is.
    """
    B, T, _ = position_ids.shape
    if attention_mask is not None and attention_mask.ndim == 4:
        allowed = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
        return torch.zeros(allowed.shape, device=allowed.device).masked_fill(~allowed, float("-inf"))
    past = cache.get_seq_length() if cache is not None else 0
    causal = torch.ones(T, T, dtype=torch.bool, device=position_ids.device).tril()
    is_input = (position_ids[..., 0] == 0)[:, None, :]  # (B, 1, T)
    allowed = causal | (is_input if past == 0 else False)  # (B or 1, T, T)
    allowed = F.pad(allowed.expand(B, T, T), (past, 0), value=True)  # (B, T, S)
    if attention_mask is not None:
        own = F.pad(torch.eye(T, dtype=torch.bool, device=position_ids.device), (past, 0))
        allowed = (allowed & attention_mask[:, None, :].bool()) | own
    return torch.zeros(B, 1, T, past + T, device=position_ids.device).masked_fill(~allowed[:, None], float("-inf"))
