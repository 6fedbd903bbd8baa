"""Muon for the matrices of the layers, AdamW for the embedding and the norms.

Muon (Keller Jordan, 2024) steps along the orthogonalised momentum; the factor
0.2 * sqrt(larger side) (Liu et al., 2025, arXiv 2502.16982) gives its steps the size of AdamW's,
so one learning rate and one weight decay serve both.
"""
import torch


def orthogonalise(x, steps=5):
    """About U V^T of x = U S V^T for each of a stack of matrices, (n, rows, columns)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    flip = x.shape[1] > x.shape[2]
    x = x.bfloat16() if x.is_cuda else x
    x = x.transpose(1, 2) if flip else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        y = x @ x.transpose(1, 2)
        x = a * x + (b * y + c * y @ y) @ x
    return x.transpose(1, 2) if flip else x


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, lr, weight_decay, momentum=0.95):
        by_shape = {}
        for p in parameters:
            by_shape.setdefault(p.shape, []).append(p)
        groups = [{"params": p} for p in by_shape.values()]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            parameters, lr, momentum = group["params"], group["lr"], group["momentum"]
            grads = [p.grad for p in parameters]
            states = [self.state[p] for p in parameters]
            for state, grad in zip(states, grads):
                state.setdefault("momentum", torch.zeros_like(grad))
            buffers = [state["momentum"] for state in states]
            torch._foreach_lerp_(buffers, grads, 1 - momentum)
            ahead = torch.stack(torch._foreach_lerp(grads, buffers, momentum))
            scale = 0.2 * max(ahead.shape[1:]) ** 0.5
            updates = list((orthogonalise(ahead) * scale).to(parameters[0].dtype).unbind())
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
            torch._foreach_add_(parameters, updates, alpha=-lr)


def optimisers(model, lr, weight_decay):
    """Of the parameters that are to be trained."""
    matrices = [p for p in model.layers.parameters() if p.ndim == 2 and p.requires_grad]
    norms = [p for p in model.parameters() if p.ndim == 1]
    rest = [p for p in [model.embed_tokens.weight, *norms] if p.requires_grad]
    made = [Muon(matrices, lr, weight_decay)]
    if rest:
        made.append(torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0, fused=rest[0].is_cuda))
    return made
