"""Search with ENAS on handwritten digits, in a loop as NNI 2.x's EnasTrainer has it."""

import torch
import torch.nn as nn
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from nni_dynconv.nni2 import EnasMutator


class Net(ModelSpace):
    def __init__(self, channels=8):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.first = LayerChoice(
            [nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 5, padding=2)],
            label="first",
        )
        self.second = LayerChoice([nn.Conv2d(channels, channels, 3, padding=1), nn.Identity()], label="second")
        self.skip = InputChoice(n_candidates=2, n_chosen=1, label="skip")
        self.head = nn.Linear(4 * channels, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = torch.relu(self.first(x))
        y = torch.relu(self.second(self.skip([x, y])))
        return self.head(nn.functional.adaptive_avg_pool2d(y, 2).flatten(1))


def digits():
    data = load_digits()
    images, labels = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    halves = TensorDataset(images[:900], labels[:900]), TensorDataset(images[900:], labels[900:])
    return [DataLoader(half, batch_size=64, shuffle=True) for half in halves]


def reward_accuracy(logits, y):
    return (logits.argmax(1) == y).float().mean().item()


class EnasTrainer:
    def __init__(self, model, mutator, criterion, reward_function, train_loader, valid_loader):
        self.model, self.mutator = model, mutator
        self.criterion, self.reward_function = criterion, reward_function
        self.train_loader, self.valid_loader = train_loader, valid_loader
        self.optim = torch.optim.Adam(self.model.parameters(), lr=5e-3)
        self.mutator_optim = torch.optim.Adam(self.mutator.parameters(), lr=1e-2)
        self.entropy_weight, self.baseline, self.baseline_decay = 1e-4, 0.0, 0.9

    def train_model(self):
        self.model.train()
        self.mutator.eval()
        losses = []
        for x, y in self.train_loader:
            self.optim.zero_grad()
            with torch.no_grad():
                self.mutator.reset()
            loss = self.criterion(self.model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optim.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def train_mutator(self):
        self.model.eval()
        self.mutator.train()
        for x, y in self.valid_loader:
            self.mutator.reset()
            with torch.no_grad():
                logits = self.model(x)
            reward = self.reward_function(logits, y)
            reward += self.entropy_weight * self.mutator.sample_entropy.item()
            self.baseline = self.baseline * self.baseline_decay + reward * (1 - self.baseline_decay)
            loss = self.mutator.sample_log_prob * (reward - self.baseline)
            self.mutator_optim.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.mutator.parameters(), 5.0)
            self.mutator_optim.step()


def main(epochs=20):
    model = Net()
    mutator = EnasMutator(model)
    trainer = EnasTrainer(model, mutator, nn.CrossEntropyLoss(), reward_accuracy, *digits())
    losses = []
    for epoch in range(epochs):
        losses.append(trainer.train_model())
        trainer.train_mutator()
        print(f"epoch {epoch}: loss {losses[-1]:.3f}")
    print("found", mutator.export())
    return losses, mutator


if __name__ == "__main__":
    main()
