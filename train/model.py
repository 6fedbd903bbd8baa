"""A plain Llama with CCA-Attention, saved as Hugging Face lays it out."""
import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import cca


@dataclass
class Config:
    hidden_size: int = 384
    intermediate_size: int = 1024
    num_hidden_layers: int = 8
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 64
    vocab_size: int = 4096
    max_position_embeddings: int = 131072
    rope_theta: float = 1e7
    rms_norm_eps: float = 1e-5
    yarn_factor: float = 1  # 1: none; from so many positions:
    yarn_original: int = 0


def linear(x, *weights):
    """x times the stacked weights, in the type of x; the weights themselves stay float32."""
    return F.linear(x, torch.cat([w.to(x.dtype) for w in weights]))


def matrix(rows, columns, std):
    module = nn.Linear(columns, rows, bias=False)
    nn.init.normal_(module.weight, std=std) if std else nn.init.zeros_(module.weight)
    return module


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        return (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def yarn_ramp(config):
    """How much each pair of dims is slowed down (Peng et al., 2023, eq. 18 to 23): 0 for those that turn more than
    32 times within the original length, 1 for less than once."""

    def pair(turns):
        return config.head_dim * math.log(config.yarn_original / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    half = config.head_dim // 2
    low, high = max(math.floor(pair(32)), 0), min(math.ceil(pair(1)), config.head_dim - 1)
    return ((torch.arange(half, dtype=torch.float64) - low) / max(high - low, 1e-3)).clamp(0, 1)


def rope_table(config, length, device):
    """cos and sin of the angles, (length, head_dim / 2) each."""
    half, factor = config.head_dim // 2, config.yarn_factor
    inverse = config.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    if factor != 1:
        inverse = inverse * (1 - yarn_ramp(config) * (1 - 1 / factor))
    angles = (torch.arange(length, dtype=torch.float64)[:, None] * inverse).to(device)
    scale = 1 + 0.1 * math.log(factor)
    return (scale * angles.cos()).float(), (scale * angles.sin()).float()


def rotate(x, cos, sin):
    """x is (tokens, heads, head_dim); pairs are (k, k + head_dim / 2)."""
    a, b = x.to(torch.promote_types(x.dtype, cos.dtype)).chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, kv_width = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = matrix(width, c.hidden_size, 0.02)
        self.k_proj = matrix(kv_width, c.hidden_size, 0.02)
        self.v_proj = matrix(kv_width, c.hidden_size, 0.02)
        self.o_proj = matrix(c.hidden_size, width, 0)


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = matrix(c.intermediate_size, c.hidden_size, 0.02)
        self.up_proj = matrix(c.intermediate_size, c.hidden_size, 0.02)
        self.down_proj = matrix(c.hidden_size, c.intermediate_size, 0)


class Layer(nn.Module):
    """Works on tokens in one line, x is (batch * length, hidden_size): so `before` and `after`
    are compiled once for all lengths, as long as a batch has equally many tokens."""

    def __init__(self, c):
        super().__init__()
        self.config = c
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c)

    def before(self, x, cos, sin):
        c, a = self.config, self.self_attn
        h = linear(self.input_layernorm(x), a.q_proj.weight, a.k_proj.weight, a.v_proj.weight)
        heads = c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads
        q, k, v = h.view(len(x), -1, c.head_dim).split(heads, 1)
        return rotate(q, cos, sin), rotate(k, cos, sin), v.contiguous()

    def after(self, x, attended):
        x = x + linear(attended, self.self_attn.o_proj.weight)
        h = linear(self.post_attention_layernorm(x), self.mlp.gate_proj.weight, self.mlp.up_proj.weight)
        gate, up = h.chunk(2, -1)
        return x + linear(F.silu(gate) * up, self.mlp.down_proj.weight)


class Llama(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.tables = {}

    def compile_parts(self):
        """Compile what is done to each token; attention has its own compiled form."""
        torch._dynamo.config.recompile_limit = 64
        for layer in self.layers:
            layer.before = torch.compile(layer.before, dynamic=False)
            layer.after = torch.compile(layer.after, dynamic=False)
        self.losses = torch.compile(self.losses, dynamic=False)

    def table(self, batch, length, device):
        if (batch, length) not in self.tables:
            cos, sin = rope_table(self.config, length, device)
            self.tables[batch, length] = cos.repeat(batch, 1), sin.repeat(batch, 1)
        return self.tables[batch, length]

    def forward(self, ids, group_size=1, window_size=1, dtype=torch.float32, recall=cca.PUBLISHED):
        """The last hidden states, (batch * length, hidden_size), of ids (batch, length)."""
        batch, length = ids.shape
        cos, sin = self.table(batch, length, ids.device)
        x = self.embed_tokens(ids).view(batch * length, -1).to(dtype)
        for layer in self.layers:
            q, k, v = (t.view(batch, length, -1, t.shape[-1]).transpose(1, 2) for t in layer.before(x, cos, sin))
            attended = cca.attention(q, k, v, group_size, window_size, recall).transpose(1, 2)
            x = layer.after(x, attended.reshape(batch * length, -1))
        return x

    def logits(self, x):
        return linear(self.norm(x), self.embed_tokens.weight)

    def losses(self, x, targets):
        """Negative log likelihood of each target, and whether it is the likeliest token."""
        logits = self.logits(x).float()
        return F.cross_entropy(logits, targets, reduction="none"), logits.detach().argmax(-1) == targets


def save(
    folder, model, group_size, window_size, tokenizer=None, dtype=torch.float32, shard_bytes=None, tuned=True, recall=cca.PUBLISHED, **more
):
    """A Hugging Face folder with the settings of CCA in config.json; tokenizer: a SentencePiece model, with which goes
    the template `plain`; shard_bytes: the largest file; more: of config.json. Sinks and recall are written for tuned
    weights: what others need is for the program to say."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **asdict(model.config)}
    factor, original = config.pop("yarn_factor"), config.pop("yarn_original")
    if factor != 1:
        config["rope_scaling"] = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    config |= {"hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False}
    config |= {"bos_token_id": 1, "eos_token_id": 2, "torch_dtype": str(dtype).removeprefix("torch.")} | more
    config["cca"] = {"group_size": group_size, "window_size": window_size, "tuned": tuned}
    if tokenizer:
        config["cca"]["chat_template"] = "plain"
    if tuned:
        config["cca"] |= {"sinks": recall.sinks, "recall": recall.budget}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shards, size = [{}], 0
    for name, value in model.state_dict().items():
        value = value.detach().to("cpu", dtype).contiguous()
        if shard_bytes and size + value.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1]["model." + name] = value
        size += value.nbytes
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else ["model.safetensors"]
    for name, shard in zip(names, shards):
        save_file(shard, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        where = {key: name for name, shard in zip(names, shards) for key in shard}
        index = {"metadata": {"total_size": sum(v.nbytes for s in shards for v in s.values())}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    if tokenizer:
        shutil.copyfile(tokenizer, folder / "tokenizer.model")


def load(folder, device="cpu"):
    """A model that `save` wrote, in float32."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    model = Llama(Config(**{k: v for k, v in config.items() if k in Config.__dataclass_fields__}))
    weights = {}
    for file in folder.glob("*.safetensors"):
        weights |= {k.removeprefix("model."): v.float() for k, v in load_file(file).items()}
    model.load_state_dict(weights)
    return model.to(device)
