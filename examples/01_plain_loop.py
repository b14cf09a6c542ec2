"""A search in a plain PyTorch loop, as users of NNI 1.x and 2.x know it: python examples/01_plain_loop.py --fast."""

import argparse
import itertools

import torch
import torch.nn.functional as F
from digits import DigitSpace, TurnedDigits
from torch.utils.data import DataLoader

from nni_dynconv import DynamicWeightMutator, EnasSampler, VectorContext


def accuracy(network, loader):
    with torch.no_grad():
        return torch.stack([(network(x, c).argmax(1) == y).float().mean() for (x, c), y in loader]).mean().item()


def step_of(network, batch):
    (x, c), y = batch
    return F.cross_entropy(network(x, c), y)


def adam(network):
    return torch.optim.Adam(network.parameters(), lr=2e-3)


def main(steps):
    torch.manual_seed(0)
    train = DataLoader(TurnedDigits(train=True), 64, shuffle=True, drop_last=True)
    held_out = DataLoader(TurnedDigits(train=False), 64, shuffle=True, drop_last=True)
    mutator = DynamicWeightMutator(DigitSpace(), sampler=EnasSampler(seed=0), context=VectorContext(4, dim=16))
    optimizer = adam(mutator.space)  # network and controller

    batches = zip(itertools.cycle(train), itertools.cycle(held_out), strict=False)
    for step, (((x, c), y), ((x_val, c_val), y_val)) in enumerate(itertools.islice(batches, steps)):
        mutator.reset()  # draw an architecture
        loss = F.cross_entropy(mutator(x, context=c), y)  # the controller makes its weights, and learns
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sample = mutator.reset()  # the sampler learns on held-out samples
        with torch.no_grad():
            reward = -F.cross_entropy(mutator(x_val, context=c_val), y_val).item()
        mutator.sampler.observe(sample, reward)
        if step % 100 == 0:
            print(f"step {step}: loss {loss:.3f}, entropy {mutator.sample_entropy:.3f}, drawn {sample}")

    best = mutator.export()
    print(mutator.plan(best))
    options = {"optimizer": adam, "epochs": max(steps // 60, 1), "folder": "runs/loop"}
    trained = mutator.train_final(step_of, train, held_out, **options)  # the loop's own step goes on
    print(f"found {best}; held-out accuracy {accuracy(trained.network, held_out):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true", help="a search of seconds")
    main(steps=60 if parser.parse_args().fast else 600)
