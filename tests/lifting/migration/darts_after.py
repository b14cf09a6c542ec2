"""Search with DARTS on handwritten digits, in a loop as NNI 2.x's DartsTrainer has it."""

import torch
import torch.nn as nn
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from nni_dynconv.nni2 import DartsMutator


class Net(ModelSpace):
    def __init__(self, channels=8):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.first = LayerChoice(
            [
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.Conv2d(channels, channels, 5, padding=2),
                nn.AvgPool2d(3, stride=1, padding=1),
            ],
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


class DartsTrainer:
    def __init__(self, model, mutator, criterion, train_loader, valid_loader):
        self.model, self.mutator, self.criterion = model, mutator, criterion
        self.train_loader, self.valid_loader = train_loader, valid_loader
        self.optim = torch.optim.Adam(self.model.parameters(), lr=5e-3)
        self.ctrl_optim = torch.optim.Adam(self.mutator.parameters(), lr=1e-2, betas=(0.5, 0.999), weight_decay=1e-3)

    def logits_and_loss(self, x, y):
        self.mutator.reset()
        logits = self.model(x)
        return logits, self.criterion(logits, y)

    def train_one_epoch(self):
        self.model.train()
        self.mutator.train()
        losses = []
        valid_batches = iter(self.valid_loader)
        for trn_x, trn_y in self.train_loader:
            val_x, val_y = next(valid_batches)

            # the architecture, on validation samples
            self.ctrl_optim.zero_grad()
            _, loss = self.logits_and_loss(val_x, val_y)
            loss.backward()
            self.ctrl_optim.step()

            # the weights, on training samples
            self.optim.zero_grad()
            _, loss = self.logits_and_loss(trn_x, trn_y)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optim.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)


def main(epochs=20):
    model = Net()
    mutator = DartsMutator(model)
    trainer = DartsTrainer(model, mutator, nn.CrossEntropyLoss(), *digits())
    losses = []
    for epoch in range(epochs):
        losses.append(trainer.train_one_epoch())
        print(f"epoch {epoch}: loss {losses[-1]:.3f}")
    print("found", mutator.export())
    return losses, mutator


if __name__ == "__main__":
    main()
