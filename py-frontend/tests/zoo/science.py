"""Fields, equations, control: networks inside of numerical programs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .model import Inputs, Model


class Equation(nn.Module):
    """A network that must satisfy a differential equation: derivatives of derivatives (PINN)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, points: torch.Tensor) -> dict[str, torch.Tensor]:
        def value(point: torch.Tensor) -> torch.Tensor:
            return self.layers(point)[0]

        bend = torch.vmap(torch.func.hessian(value))(points).reshape(-1)
        heights = self.layers(points)[:, 0]
        edges = self.layers(torch.zeros_like(points[:1])).square().sum()
        return {"loss": (bend + heights).square().mean() + edges, "heights": heights}


class Motion(nn.Module):
    """A differential equation that is learnt, by Runge and Kutta's steps (neural ODE)."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Sequential(nn.Linear(3, 16), nn.Softplus(), nn.Linear(16, 3))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        step = 0.1
        for _ in range(6):
            first = self.slope(state)
            second = self.slope(state + step / 2 * first)
            third = self.slope(state + step / 2 * second)
            last = self.slope(state + step * third)
            state = state + step / 6 * (first + 2 * second + 2 * third + last)
        return state


class Spectral(nn.Module):
    """Products in the frequency domain (Fourier neural operator)."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(0.2 * torch.randn(4, 4, 6, 4, dtype=torch.cfloat))
        self.local = nn.Conv2d(4, 4, 1)

    def forward(self, field: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft2(field)
        kept = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :6, :4], self.weights)
        out = torch.zeros_like(spectrum)
        out[:, :, :6, :4] = kept
        return functional.gelu(torch.fft.irfft2(out, s=field.shape[-2:]) + self.local(field))


class Radiance(nn.Module):
    """Colours along rays, added up by how much gets through (NeRF)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(18, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, origins: torch.Tensor, ways: torch.Tensor) -> torch.Tensor:
        depth = torch.linspace(0.5, 2, 8, device=origins.device).to(origins.dtype)
        points = origins[:, None] + ways[:, None] * depth[:, None]
        angles = points[..., None] * torch.tensor([1.0, 2, 4], device=points.device).to(points)
        given = self.layers(torch.cat([angles.sin(), angles.cos()], -1).flatten(2))
        opacity = 1 - torch.exp(-functional.relu(given[..., 3]) * 0.2)
        through = torch.cumprod(1 - opacity + 1e-6, 1)
        through = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], 1)
        return ((opacity * through)[..., None] * torch.sigmoid(given[..., :3])).sum(1)


class GaussianProcess(nn.Module):
    """The likelihood of observations, by a Cholesky factor."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(3, 2)
        self.noise = nn.Parameter(torch.tensor(0.5))

    def forward(self, rows: torch.Tensor, seen: torch.Tensor) -> dict[str, torch.Tensor]:
        distance = torch.cdist(self.features(rows), self.features(rows)).square()
        cover = torch.exp(-0.5 * distance) + self.noise.square() * torch.eye(
            len(rows), device=rows.device, dtype=rows.dtype
        )
        factor = torch.linalg.cholesky(cover)
        solved = torch.cholesky_solve(seen[:, None], factor)
        loss = 0.5 * (seen @ solved[:, 0]) + factor.diagonal().log().sum()
        return {"loss": loss, "solved": solved}


class ActorCritic(nn.Module):
    """A policy and what it is worth, clipped as PPO has it, with advantages along the way."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 16)
        self.policy, self.worth = nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(
        self, states: torch.Tensor, actions: torch.Tensor, rewards: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        hidden = self.body(states).tanh()
        worth = self.worth(hidden)[:, 0]
        policy = torch.distributions.Categorical(logits=self.policy(hidden), validate_args=False)
        following = torch.cat([worth[1:], worth.new_zeros(1)]).detach()
        surprise = (rewards + 0.9 * following - worth).detach()
        fading = 0.8 ** torch.arange(len(rewards), device=rewards.device).to(rewards.dtype)
        ahead = (surprise * fading).flip(0).cumsum(0).flip(0) / fading
        chances = policy.log_prob(actions)
        ratio = (chances - chances.detach()).exp()
        gained = torch.minimum(ratio * ahead, ratio.clamp(0.8, 1.2) * ahead).mean()
        wrong = functional.smooth_l1_loss(worth, rewards + 0.9 * following)
        return {"loss": wrong - gained - 0.01 * policy.entropy().mean(), "worth": worth}


class Adapted(nn.Module):
    """A step of learning inside of the forward, and the gradient through it (MAML)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, tasks: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        parameters = dict(self.layers.named_parameters())

        def loss(given: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return functional.mse_loss(torch.func.functional_call(self.layers, given, (x,)), y)

        def adapted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            slopes = torch.func.grad(loss)(parameters, x, y)
            moved = {name: value - 0.1 * slopes[name] for name, value in parameters.items()}
            return loss(moved, x, y)

        return torch.vmap(adapted)(tasks, answers).sqrt()


def _rays() -> Inputs:
    ways = functional.normalize(torch.randn(5, 3), dim=1)
    return {"origins": torch.randn(5, 3) * 0.1, "ways": ways}


MODELS = {
    "pinn": Model(Equation, lambda: {"points": torch.linspace(0, 3, 8)[:, None]}),
    "neural_ode": Model(Motion, lambda: {"state": torch.randn(4, 3)}),
    "fourier_operator": Model(Spectral, lambda: {"field": torch.randn(2, 4, 12, 12)}),
    "nerf": Model(Radiance, _rays),
    "gaussian_process": Model(
        GaussianProcess, lambda: {"rows": torch.randn(8, 3), "seen": torch.randn(8)}
    ),
    "actor_critic": Model(
        ActorCritic,
        lambda: {
            "states": torch.randn(10, 4),
            "actions": torch.randint(3, (10,)),
            "rewards": torch.rand(10),
        },
    ),
    "maml": Model(
        Adapted, lambda: {"tasks": torch.randn(3, 5, 2), "answers": torch.randn(3, 5, 1)}
    ),
}
